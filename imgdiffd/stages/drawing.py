"""Red boxes on images, and pairs joined by a bar (paper, section 3.4), as the captioner and samples show them."""

import torch
from torch import Tensor

from imgdiffd.method.messages import Box
from imgdiffd.method.profile_sections import Render
from imgdiffd.method.red_box import RED, box_lines


def with_box(image: Tensor, box: Box, render: Render, bar_px: int) -> Tensor:
    """A copy of `image` (uint8 [3, H, W]) with the grown, clamped box in red, its line inside the box.

    The line's width depends on that of the joined image, and so on its bar of `bar_px`.
    """
    drawn = image.clone()
    red = torch.tensor(RED, dtype=torch.uint8, device=image.device).view(3, 1, 1)
    for x1, y1, x2, y2 in box_lines(box, render, bar_px, image.shape[2], image.shape[1]):
        drawn[:, y1:y2, x1:x2] = red
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
