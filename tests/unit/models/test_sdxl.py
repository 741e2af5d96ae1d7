"""An SDXL checkpoint: overflow is never a black image and never unsaid; what steps share is computed once."""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from imgdiffd.kernels.compile import compile_blocks
from imgdiffd.models.sdxl import Sdxl, condition_once, embedded
from tests.reference.plain_injection import Draws
from tests.tiny.sdxl import tiny_unet

CPU = torch.device("cpu")
LARGE = 3e4  # fp16 ends at 65,504


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path) -> Path:
    return tiny_bundle.parent / "painter"


def overflowing(folder: Path) -> Sdxl:
    """A checkpoint whose decoder has weights that fp16 holds and products that it does not."""
    sdxl = Sdxl.load(str(folder), CPU, torch.float32)
    with torch.no_grad():
        weight = sdxl.vae.decoder.conv_in.weight
        weight.mul_(LARGE / weight.abs().max())
    sdxl.vae.half().float()  # rounded, so that both precisions decode with the same weights
    return sdxl


def latents_of(sdxl: Sdxl) -> torch.Tensor:
    return torch.randn(sdxl.vae.config.latent_channels, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_a_decode_overflow_in_fp16_is_repeated_in_fp32(folder: Path) -> None:
    sdxl = overflowing(folder)
    latents = latents_of(sdxl) * 20
    wanted = sdxl.decode(latents)
    assert wanted is not None
    assert sdxl.decodes_repeated == 0  # fp32 needs no second try
    sdxl.vae.half()
    assert not sdxl._decoded(latents[None]).isfinite().all()
    image = sdxl.decode(latents)
    assert image is not None
    assert torch.equal(image, wanted)
    assert sdxl.decodes_repeated == 1
    assert sdxl.vae.dtype == torch.float16


@torch.inference_mode()
def test_a_repeated_decode_compiles_nothing_new(folder: Path) -> None:
    sdxl, graphs = overflowing(folder), list[object]()
    latents = latents_of(sdxl) * 20
    wanted = sdxl.decode(latents)
    assert wanted is not None

    def backend(graph: Any, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compile_blocks("the painter", sdxl.repeated_blocks(), pytest.fail, fixed_shapes=True, backend=backend)
    sdxl.vae.half()
    sdxl._decoded(latents[None])
    before = len(graphs)
    assert before > 0  # the decoder's blocks are among the compiled
    image = sdxl.decode(latents)
    assert image is not None
    assert torch.equal(image, wanted)
    assert sdxl.decodes_repeated == 1
    assert len(graphs) == before
    torch._dynamo.reset()


@torch.inference_mode()
def test_a_decode_that_fits_fp16_is_not_repeated(folder: Path) -> None:
    sdxl = Sdxl.load(str(folder), CPU, torch.float32)
    sdxl.vae.half()
    assert sdxl.decode(latents_of(sdxl)) is not None
    assert sdxl.decodes_repeated == 0


@torch.inference_mode()
def test_latents_that_are_not_finite_are_not_decoded_twice(folder: Path) -> None:
    sdxl = Sdxl.load(str(folder), CPU, torch.float32)
    sdxl.vae.half()
    assert sdxl.decode(latents_of(sdxl) * torch.nan) is None
    assert sdxl.decodes_repeated == 0


def test_out_of_memory_while_loading_is_not_a_damaged_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StableDiffusionXLPipeline, "from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError):
        Sdxl.load(str(folder), CPU, torch.float32)


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_convolutions_on_a_gpu_keep_channels_last(part: str) -> None:
    pipeline = MagicMock()
    Sdxl(pipeline, torch.device("cuda"))
    assert getattr(pipeline, part).to.call_args.kwargs["memory_format"] is torch.channels_last


def test_conditioning_that_all_steps_share_is_computed_once() -> None:
    draws, unet, calls = Draws(2), tiny_unet(), dict.fromkeys(("embedding", "activation"), 0)
    wanted = draws.predict(unet)
    condition_once(unet)
    condition_once(unet)  # an eraser may share the painter's
    given = draws.added
    draws.added = embedded(unet, draws.rows, given)

    def count(name: str) -> Any:
        return lambda *_: calls.update({name: calls[name] + 1})

    unet.add_embedding.register_forward_hook(count("embedding"))
    unet.time_embed_act.register_forward_hook(count("activation"))
    assert torch.equal(draws.predict(unet), wanted)
    assert calls == {"embedding": 0, "activation": 1}
    draws.added = given
    assert torch.equal(draws.predict(unet), wanted)
    assert calls["embedding"] == 1
