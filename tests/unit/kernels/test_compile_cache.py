"""The cache of compiled kernels: a second start compiles nothing, and computes the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEPT = """
import json, sys, torch
resnet_alone = sys.argv[1:] == ["1"]
from torch._dynamo.utils import counters
from torch._inductor import config
from imgdiffd.kernels.compile import compile_blocks
from tests.tiny.sdxl import tiny_unet
config.cpp_cache_precompile_headers = False  # four kernels do not repay it
unet = tiny_unet()
block, resnet = unet.down_blocks[0].attentions[0].transformer_blocks[0], unet.down_blocks[0].resnets[0]
torch.manual_seed(0)
states, text = torch.randn(2, 16, 32), torch.randn(2, 5, 64)
image, time = torch.randn(2, 32, 8, 8), torch.randn(2, 128)
def run():
    with torch.inference_mode():
        painted = resnet(image, time)
        return (painted,) if resnet_alone else (painted, block(states, encoder_hidden_states=text))
wanted = run()
notes = []
compile_blocks("the block", [resnet] if resnet_alone else [block, resnet], notes.append, fixed_shapes=True)
error = max(float((one - other).abs().max()) for one, other in zip(run(), wanted))
print(json.dumps({"notes": notes, "error": error, **counters["inductor"]}))
"""


@pytest.mark.parametrize("kernels", [1, pytest.param(4, marks=pytest.mark.long)])
def test_a_second_start_reuses_every_kernel_of_the_first(tmp_path: Path, kernels: int) -> None:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_VEC_ISA_OK": "0",  # scalar loops: else each process first tries out the CPU's vectors
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    found = []
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-P", "-c", KEPT, str(kernels)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(ended.stdout))
    first, second = found
    assert (first["notes"], second["notes"]) == ([], [])
    assert first["fxgraph_cache_miss"] == kernels
    assert second["fxgraph_cache_hit"] == kernels
    assert "fxgraph_cache_miss" not in second
    assert max(first["error"], second["error"]) < 1e-4
