"""Red boxes on images, and pairs joined by a bar (paper, section 3.4), as the captioner and samples show them."""

import math

import torch
from torch import Tensor

from imgdiffd.method.messages import Box
from imgdiffd.method.profile_sections import Render

RED = (255, 0, 0)


def clamped(box: Box, width: int, height: int) -> Box:
    """The part of `box` that lies on the canvas: a box without area where it lies beside it."""
    x1, y1, x2, y2 = box
    return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)


def grown(box: Box, px: int, width: int, height: int) -> Box:
    """`box`, larger by `px` pixels on every side, as far as the canvas reaches."""
    x1, y1, x2, y2 = box
    return clamped((x1 - px, y1 - px, x2 + px, y2 + px), width, height)


def joined_width(width: int, bar_px: int) -> int:
    """The width of a joined pair of images of `width`."""
    return 2 * width + bar_px


def line_width(render: Render, width: int) -> int:
    """The width of a box's line in a joined image of `width`: at least a pixel of it survives scaling to `view_px`."""
    return max(render.line_px, math.ceil(width / render.view_px) if render.view_px else 0)


def with_box(image: Tensor, box: Box, render: Render, bar_px: int) -> Tensor:
    """A copy of `image` (uint8 [3, H, W]) with the grown, clamped box in red, its line inside the box.

    The line's width depends on that of the joined image, and so on its bar of `bar_px`.
    """
    height, width = image.shape[1:]
    x1, y1, x2, y2 = grown(box, render.grow_px, width, height)
    line = line_width(render, joined_width(width, bar_px))
    drawn = image.clone()
    red = torch.tensor(RED, dtype=torch.uint8, device=image.device).view(3, 1, 1)
    drawn[:, y1 : min(y1 + line, y2), x1:x2] = red
    drawn[:, max(y2 - line, y1) : y2, x1:x2] = red
    drawn[:, y1:y2, x1 : min(x1 + line, x2)] = red
    drawn[:, y1:y2, max(x2 - line, x1) : x2] = red
    return drawn


def sample_sides(
    pair: tuple[Tensor, Tensor], left: int, box: Box, render: Render, bar_px: int
) -> tuple[Tensor, Tensor]:
    """The left and the right image of a sample: image `left` (1 or 2) of the pair and the other, with red boxes."""
    first, second = (with_box(image, box, render, bar_px) for image in (pair if left == 1 else pair[::-1]))
    return first, second


def joined(left: Tensor, right: Tensor, bar_px: int) -> Tensor:
    """Both images side by side with a black bar of `bar_px` between them: [3, H, 2·W + bar_px]."""
    bar = torch.zeros((3, left.shape[1], bar_px), dtype=torch.uint8, device=left.device)
    return torch.cat((left, bar, right), dim=2)
