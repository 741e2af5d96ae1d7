"""Draws the contact sheet: one image with every sample's two images, their boxes and captions."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageDraw, ImageFont

from imgdiffd.export.sample import Sample

NAME = "contact-sheet.png"
_IMAGE_PX = 224
_GAP_PX = 8
_MARGIN_PX = 16
_FONT_PX = 14
_LINE_PX = 18
_COLUMNS = 3
_CARD_WIDTH = 2 * _IMAGE_PX + _GAP_PX
_CHARACTERS = 62  # of the built-in font at _FONT_PX in a card's width
_INK, _FAINT, _PAPER, _LEFT, _RIGHT = (24, 24, 24), (110, 110, 110), (250, 250, 248), (0, 92, 170), (176, 64, 0)
MAX_SAMPLES = 120

_Line = tuple[str, tuple[int, int, int]]


def _lines(sample: Sample) -> list[_Line]:
    """The card's text: the number that `imgdiffd explain` takes, both captions, both regions' texts, the difference."""
    edited = "right" if sample.original == "left" else "left"
    blocks = (
        (f"#{sample.item}  {sample.original}: {sample.caption}", _FAINT),
        (f"{edited}: {sample.caption2}", _FAINT),
        (f"left box: {sample.text_left}", _LEFT),
        (f"right box: {sample.text_right}", _RIGHT),
        (sample.answer, _INK),
    )
    return [(line, colour) for text, colour in blocks for line in textwrap.wrap(text, _CHARACTERS) or [""]]


def _image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        # Enlarged without smoothing, so that a small image's pixels and its one-pixel box stay what they are.
        method = Image.Resampling.NEAREST if image.width <= _IMAGE_PX // 2 else Image.Resampling.LANCZOS
        height = round(image.height * _IMAGE_PX / image.width)
        return image.convert("RGB").resize((_IMAGE_PX, height), method)


def _card(sample: Sample, images: Path, lines: Sequence[_Line], height: int) -> Image.Image:
    card = Image.new("RGB", (_CARD_WIDTH, height), _PAPER)
    left, right = _image(images / sample.left), _image(images / sample.right)
    card.paste(left, (0, 0))
    card.paste(right, (_IMAGE_PX + _GAP_PX, 0))
    draw = ImageDraw.Draw(card)
    font = ImageFont.load_default(_FONT_PX)
    for number, (line, colour) in enumerate(lines):
        draw.text((0, left.height + 6 + number * _LINE_PX), line, colour, font)
    return card


class ContactSheet:
    """Gathers samples and draws them; `images` is the folder that their paths lie in.

    Of more than MAX_SAMPLES samples, every second, fourth and so on is drawn. The title says how many there are.
    """

    def __init__(self, images: Path) -> None:
        self._images = images
        self._count = 0
        self._step = 1
        self._shown: list[Sample] = []

    def note(self, sample: Sample) -> None:
        """Add a sample behind those noted so far."""
        if self._count % self._step == 0:
            self._shown.append(sample)
        self._count += 1
        if len(self._shown) > MAX_SAMPLES:
            self._shown, self._step = self._shown[::2], 2 * self._step

    def save(self, file: BinaryIO) -> None:
        """Draw the sheet as PNG into an open file."""
        shown = self._shown
        texts = [_lines(sample) for sample in shown]
        columns = min(_COLUMNS, max(1, len(shown)))
        image_height = max((round(s.height * _IMAGE_PX / s.width) for s in shown), default=0)
        row_heights = [
            image_height + 6 + _LINE_PX * max(len(lines) for lines in texts[first : first + columns]) + _MARGIN_PX
            for first in range(0, len(shown), columns)
        ]
        width = _MARGIN_PX + columns * (_CARD_WIDTH + _MARGIN_PX)
        header = 2 * _MARGIN_PX + _LINE_PX
        sheet = Image.new("RGB", (width, header + sum(row_heights)), _PAPER)
        title = f"{self._count} samples" + (f", one in {self._step} shown" if self._step > 1 else "")
        ImageDraw.Draw(sheet).text((_MARGIN_PX, _MARGIN_PX), title, _INK, ImageFont.load_default(_FONT_PX + 2))
        top = header
        for row, height in enumerate(row_heights):
            for number in range(row * columns, min((row + 1) * columns, len(shown))):
                card = _card(shown[number], self._images, texts[number], height)
                sheet.paste(card, (_MARGIN_PX + number % columns * (_CARD_WIDTH + _MARGIN_PX), top))
            top += height
        sheet.save(file, "PNG")
