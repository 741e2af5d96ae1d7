"""Draws the red boxes of samples that no stage has rendered, to the pixel as the stages do, without torch."""

from PIL import Image

from imgdiffd.method.messages import Box
from imgdiffd.method.profile_sections import Render
from imgdiffd.method.red_box import RED, box_lines


def with_box(image: Image.Image, box: Box, render: Render, bar_px: int) -> Image.Image:
    """A copy of `image` in RGB with a sample's box drawn in: what `stages.drawing.with_box` makes of its pixels."""
    drawn = image.convert("RGB")
    for line in box_lines(box, render, bar_px, *image.size):
        drawn.paste(RED, line)
    return drawn
