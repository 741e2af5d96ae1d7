"""Where the red box of a sample is drawn, pixel by pixel (paper, section 3.4), whoever draws it."""

import math

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


def box_lines(box: Box, render: Render, bar_px: int, width: int, height: int) -> tuple[Box, Box, Box, Box]:
    """The top, bottom, left and right line of the grown, clamped box in an image of that size, to be filled with red.

    The lines lie inside the box. Their width depends on that of the joined image, and so on its bar of `bar_px`.
    """
    x1, y1, x2, y2 = grown(box, render.grow_px, width, height)
    line = line_width(render, joined_width(width, bar_px))
    return (
        (x1, y1, x2, min(y1 + line, y2)),
        (x1, max(y2 - line, y1), x2, y2),
        (x1, y1, min(x1 + line, x2), y2),
        (max(x2 - line, x1), y1, x2, y2),
    )
