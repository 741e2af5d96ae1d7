"""The memory of a captioner's pass at real size, against the peak that its bundle states."""

import pytest
import torch

from imgdiffd.bundles.bundle import SHIPPED, load_bundle
from imgdiffd.models.shared_prefix import PassShape, SharedPass, let_share
from tests.reference.real_size import SOURCES

DESCRIBE = {"slots": 5, "width": 48, "new_tokens": 64}  # five regions of an image of 1,024²
CONTRAST = {"slots": 1, "width": 224, "new_tokens": 128}  # a joined pair, asked once
TOKENS = {"paper": (2970, 1792), "small": (2970, 1792), "compact": (1040, 2096)}  # of the prefix of each
READING_BYTES = {"paper": 0.6e9, "small": 0.6e9, "compact": 0.3e9}  # beside, as the bundles' comments have it


@pytest.mark.parametrize("name", SHIPPED)
def test_the_key_value_memory_is_what_the_bundle_states(name: str) -> None:
    captioner = load_bundle(name).captioner
    with torch.device("meta"):
        model = SOURCES[captioner.source]()["model"].half()
    assert let_share(model) == ""
    held = []
    for sizes, prefix in zip((DESCRIBE, CONTRAST), TOKENS[name], strict=True):
        shape = PassShape(captioner.rows_per_pass, prefix=prefix, **sizes)
        shared = SharedPass(model, shape)
        with torch.inference_mode():
            logits = shared.begin([[[1] * shape.width] * shape.slots] * shape.images)
            shared.step(logits.argmax(-1))
        held.append(sum(layer.keys.nbytes + layer.values.nbytes for layer in shared.cache.layers))
    assert captioner.peak_gb is not None
    assert 0.9 <= (max(held) + READING_BYTES[name]) / (captioner.peak_gb * 1e9) <= 1.0
