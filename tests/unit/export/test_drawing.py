"""A box drawn at export is the box that the stages draw, to the pixel."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imgdiffd.export import drawing
from imgdiffd.method.profile import load_profile
from imgdiffd.stages.drawing import with_box

PROFILE = load_profile("default")
edges = st.integers(-30, 130)


@given(edges, edges, edges, edges, st.sampled_from([(3, 336), (1, 0), (9, 8)]), st.integers(0, 9))
def test_pillow_and_torch_draw_the_same_pixels(
    x1: int, y1: int, x2: int, y2: int, line: tuple[int, int], grow: int
) -> None:
    box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    render = PROFILE.render.model_copy(update={"line_px": line[0], "view_px": line[1], "grow_px": grow})
    pixels = np.random.default_rng(1).integers(0, 255, (64, 80, 3), np.uint8)
    wanted = with_box(torch.from_numpy(pixels).permute(2, 0, 1), box, render, 20).permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(drawing.with_box(image, box, render, 20)), wanted)
    assert np.array_equal(np.asarray(image), pixels), "the image itself is untouched"
