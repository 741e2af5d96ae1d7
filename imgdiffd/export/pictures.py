"""Makes a dataset's images of a sample's: converted to JPEG, and side by side where a model takes one image."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from imgdiffd.errors import ExportError
from imgdiffd.export.drawing import with_box
from imgdiffd.export.sample import Sample

_JPEG_QUALITY = 95
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of the dataset: its name there, and the images below the image folder that it is made of.

    Two of them stand side by side with a black bar of `bar_px` between them. With `size`, width and height in pixels,
    the image is scaled to that. `unboxed` says that the sample's box has yet to be drawn.
    """

    name: str
    sources: tuple[str, ...]
    bar_px: int = 0
    size: tuple[int, int] | None = None
    unboxed: bool = False


class ImageError(ExportError):
    """An image of a sample is missing or damaged."""


def joined(sample: Sample, stem: str) -> tuple[Picture, ...]:
    """One image of both: left, bar, right."""
    return (Picture(f"{stem}.jpg", (sample.left, sample.right), sample.bar_px, unboxed=sample.box_style is not None),)


def two(sample: Sample, stem: str) -> tuple[Picture, ...]:
    """The left and the right image."""
    unboxed = sample.box_style is not None
    sides = ((f"{stem}_0.jpg", sample.left), (f"{stem}_1.jpg", sample.right))
    return tuple(Picture(name, (source,), unboxed=unboxed) for name, source in sides)


def stamps_of(images: Path, pictures: Sequence[Picture], sample: Sample) -> list[tuple[int, int]]:
    """Time of change in ns and size in bytes of every source, in order. Raises ImageError if one is missing."""
    found = []
    for picture in pictures:
        for name in picture.sources:
            try:
                status = (images / name).stat()
            except OSError as error:
                raise _unusable(images / name, sample, error) from error
            found.append((status.st_mtime_ns, status.st_size))
    return found


def time_of(stamps: Sequence[tuple[int, int]]) -> int:
    """A time of change in ns for an image made of these sources: another if a source is another. Of one, its own."""
    times = [changed for changed, _ in stamps]
    return times[0] if len(times) == 1 else max(times) // _NS * _NS + sum(times) % _NS


def as_jpeg(images: Path, picture: Picture, sample: Sample) -> bytes:
    """The image as JPEG. Raises ImageError if a source is missing or damaged."""
    parts = []
    for name in picture.sources:
        try:
            with Image.open(images / name) as source:
                if _is_done(source, picture):
                    return (images / name).read_bytes()
                boxed = sample.box_style if picture.unboxed else None
                parts.append(
                    with_box(source, sample.box, boxed.render, boxed.bar_px) if boxed else source.convert("RGB")
                )
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises any of them for a damaged file
            raise _unusable(images / name, sample, error) from error
    image = parts[0] if len(parts) == 1 else _side_by_side(parts, picture.bar_px)
    if picture.size and image.size != picture.size:
        image = image.resize(picture.size, Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return jpeg.getvalue()


def _is_done(source: Image.Image, picture: Picture) -> bool:
    """Whether it is a JPEG of all that is wanted, as of an imported dataset: encoded again, it would lose each time."""
    alone = len(picture.sources) == 1 and not picture.unboxed and picture.size in (None, source.size)
    return alone and (source.format, source.mode) == ("JPEG", "RGB")


def _side_by_side(parts: Sequence[Image.Image], bar_px: int) -> Image.Image:
    """Both on black, the second at the height of the first: another height alone would give an edit away."""
    left, right = parts
    if right.height != left.height:
        width = max(1, round(right.width * left.height / right.height))
        right = right.resize((width, left.height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (left.width + bar_px + right.width, left.height))
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width + bar_px, 0))
    return canvas


def _unusable(path: Path, sample: Sample, error: Exception) -> ImageError:
    what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
    return ImageError(
        f"caption {sample.item}, sample {sample.key}: its image {path} {what}",
        hint="no keep_pictures deletes a sample's images: restore it from a backup, or leave such samples out with "
        "--skip-missing",
    )
