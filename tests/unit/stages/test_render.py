from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imgdiffd.method.messages import Box, RenderInput, RenderRegion
from imgdiffd.method.profile import load_profile
from imgdiffd.method.red_box import grown, joined_width, line_width
from imgdiffd.stages.drawing import joined, with_box
from imgdiffd.stages.images import Images
from imgdiffd.stages.render import render
from imgdiffd.testing.models import canvas, fake_models

PROFILE = load_profile("default")
GROW, LINE = PROFILE.render.grow_px, PROFILE.render.line_px
NARROW = PROFILE.render.model_copy(update={"view_px": 0})
W, H = 80, 60


def is_red(image: Tensor) -> Tensor:
    """[H, W], true where the pixel is pure red."""
    return (image == torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)).all(dim=0)


def test_box_is_grown_and_drawn_as_a_hollow_frame() -> None:
    red = is_red(with_box(canvas("green", W, H), (30, 20, 60, 45), NARROW, 20))
    wanted = torch.zeros(H, W, dtype=torch.bool)
    wanted[20 - GROW : 45 + GROW, 30 - GROW : 60 + GROW] = True
    wanted[20 - GROW + LINE : 45 + GROW - LINE, 30 - GROW + LINE : 60 + GROW - LINE] = False
    assert torch.equal(red, wanted)


@pytest.mark.parametrize(
    "box",
    [(0, 0, W, H), (-20, -20, 30, 30), (W - 10, H - 10, W + 40, H + 40), (0, 20, 10, 40), (30, H - 2, 50, H)],
    ids=["whole canvas", "beyond top left", "beyond bottom right", "at the left edge", "at the bottom edge"],
)
def test_a_box_beyond_the_canvas_is_drawn_with_four_sides(box: Box) -> None:
    red = is_red(with_box(canvas("green", W, H), box, NARROW, 20))
    x1, y1, x2, y2 = grown(box, GROW, W, H)
    assert 0 <= x1 < x2 <= W
    assert 0 <= y1 < y2 <= H
    for side in (red[y1, x1:x2], red[y2 - 1, x1:x2], red[y1:y2, x1], red[y1:y2, x2 - 1]):
        assert side.all()


def test_drawing_leaves_the_pair_itself_untouched() -> None:
    image = canvas("green", W, H)
    with_box(image, (10, 10, 40, 40), NARROW, 20)
    assert torch.equal(image, canvas("green", W, H))


@pytest.mark.parametrize(
    ("width", "view_px", "wanted"), [(2068, 336, 7), (2068, 0, 3), (148, 336, 3), (1008, 336, 3), (1009, 336, 4)]
)
def test_line_width_follows_the_joined_image(width: int, view_px: int, wanted: int) -> None:
    assert line_width(PROFILE.render.model_copy(update={"view_px": view_px}), width) == wanted


@pytest.mark.parametrize("filter_", [Image.Resampling.BOX, Image.Resampling.BICUBIC], ids=["box", "bicubic"])
def test_the_line_survives_resizing_for_training(filter_: Image.Resampling) -> None:
    side, bar, view = 1024, PROFILE.contrast.bar_px, PROFILE.render.view_px
    left, right = (with_box(canvas("green", side, side), (301, 207, 717, 803), PROFILE.render, bar) for _ in (1, 2))
    image = joined(left, right, bar)
    assert image.shape[2] == joined_width(side, bar)
    height = round(side * view / image.shape[2])
    small = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((view, height), filter_)
    redness = np.asarray(small).astype(int)[:, :, 0] - np.asarray(small).astype(int)[:, :, 1]
    across = redness[height // 2]  # a row through both frames: two lines each
    lines = np.flatnonzero((across[1:] > 0) & (across[:-1] <= 0))
    assert len(lines) == 4
    down = redness[:, view // 4]
    assert len(np.flatnonzero((down[1:] > 0) & (down[:-1] <= 0))) == 2


@pytest.mark.parametrize("left", [1, 2])
def test_sample_files_show_the_pair_in_the_order_of_its_sides(tmp_path: Path, left: int) -> None:
    images = Images(tmp_path, torch.device("cpu"))
    images.write({"000003/3141-2-1.png": canvas("green", W, H)})
    images.write({"000003/3141-2-2.png": canvas("white", W, H)})
    regions = (RenderRegion(0, (10, 10, 40, 40), left), RenderRegion(1, (30, 20, 60, 45), left))
    entry = RenderInput(3141, "000003/3141-2-1.png", "000003/3141-2-2.png", regions)
    (output,) = render(fake_models(), PROFILE, [entry], images)
    assert [(r.index, r.left_image, r.right_image) for r in output.regions] == [
        (0, "000003/3141-2-r0-left.png", "000003/3141-2-r0-right.png"),
        (1, "000003/3141-2-r1-left.png", "000003/3141-2-r1-right.png"),
    ]
    corners = [tuple(images.read(path)[:, 0, 0].tolist()) for path in ("000003/3141-2-r0-left.png",)]
    assert corners == [(0, 255, 0) if left == 1 else (255, 255, 255)]


def test_rendering_again_writes_the_same_bytes(tmp_path: Path) -> None:
    images = Images(tmp_path, torch.device("cpu"))
    for name in ("3-0-1.png", "3-0-2.png"):
        images.write({name: canvas("green", W, H)})
    entry = RenderInput(3, "3-0-1.png", "3-0-2.png", (RenderRegion(0, (10, 10, 40, 40), 1),))
    first = render(fake_models(), PROFILE, [entry], images)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert render(fake_models(), PROFILE, [entry], images) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == files
