"""Finds the images of a published dataset in its folders or ZIP archives, checks them, and puts them where they go."""

import errno
import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from imgdiffd import durable
from imgdiffd.errors import InputError
from imgdiffd.importing.records import FOLDERS, Record, RecordError

MOST_BYTES = 16 << 20  # an image of 1024 pixels squared takes one
MOST_PIXELS = 8192 * 8192
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_KINDS = {"JPEG": ".jpg", "PNG": ".png"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, Warning)


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image: a file, or the bytes of an archive's member; `ending` goes with what it holds, not with its name."""

    source: Path | bytes
    width: int
    height: int
    ending: str


class Sources:
    """The images below a dataset's folder; a context manager, since archives stay open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._members: dict[str, tuple[zipfile.ZipFile, zipfile.ZipInfo]] = {}

    def __enter__(self) -> Self:
        for name in FOLDERS.values():
            archive = self._folder / f"{name}.zip"
            if archive.is_file():
                self._read(archive, name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open.close()

    def _read(self, archive: Path, name: str) -> None:
        """Note the archive's members under the paths that records may have: with or without the folder's name."""
        try:
            opened = self._open.enter_context(zipfile.ZipFile(archive))
        except _BROKEN as error:
            hint = "download it again, or unpack it beside the lists"
            raise InputError(f"{archive}: not a ZIP archive: {error}", code="bad_archive", hint=hint) from error
        for member in opened.infolist():
            path = member.filename.removeprefix("./")
            self._members.setdefault(path, (opened, member))
            self._members.setdefault(f"{name}/{path}", (opened, member))

    def pair(self, record: Record) -> tuple[FoundImage, FoundImage]:
        """The left and the right image. Raises RecordError if one is missing or damaged, or their sizes differ."""
        left, right = (self._image(record, end) for end in ("_0.jpg", "_1.jpg"))
        if (left.width, left.height) != (right.width, right.height):
            sizes = f"{left.width}x{left.height} and {right.width}x{right.height}"
            raise RecordError("sizes_differ", f"its images are {sizes} pixels: {record.path}")
        return left, right

    def _image(self, record: Record, end: str) -> FoundImage:
        names = (f"{record.path}{end}", f"{FOLDERS[record.kind]}/{record.path}{end}")
        for name in names:
            if (file := self._folder / name).is_file():
                return _checked(name, file)
        for name in names:
            if name in self._members:
                return _checked(name, self._unpacked(name))
        raise RecordError("image_missing", f"its image is missing: {names[0]}")

    def _unpacked(self, name: str) -> bytes:
        """The member's bytes, read no further than an image may be long, whatever the archive says."""
        archive, member = self._members[name]
        try:
            with archive.open(member) as opened:
                return opened.read(MOST_BYTES + 1)
        except _BROKEN as error:
            raise RecordError("image_damaged", f"its image cannot be unpacked: {name}: {error}") from error


def _checked(name: str, source: Path | bytes) -> FoundImage:
    """The image if it is one: its head is read, not its pixels, and its end must be there."""
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            size = file.seek(0, os.SEEK_END)
            if size > MOST_BYTES:
                raise RecordError("image_damaged", f"its image is larger than {MOST_BYTES >> 20} MiB: {name}")
            file.seek(max(0, size - 64))
            tail = file.read()
            with warnings.catch_warnings(action="error"), Image.open(file, formats=list(_KINDS)) as image:
                kind, (width, height) = image.format or "", image.size
    except _BROKEN as error:
        raise RecordError("image_damaged", f"its image cannot be read: {name}: {error}") from error
    if _ENDS[kind] not in tail or width * height > MOST_PIXELS:
        why = "cut off" if _ENDS[kind] not in tail else f"{width}x{height} pixels large"
        raise RecordError("image_damaged", f"its image is {why}: {name}")
    return FoundImage(source, width, height, _KINDS[kind])


def place(images: Mapping[Path, FoundImage]) -> None:
    """Put each image at its path, durably: a hard link where it can be one, else a copy. Raises OSError."""
    for folder in {target.parent for target in images}:
        durable.make_folder(folder)
    links = {target: image.source.resolve() for target, image in images.items() if isinstance(image.source, Path)}
    for source in links.values():
        durable.sync(source)
    for source in durable.link(links):
        raise FileNotFoundError(errno.ENOENT, "gone since it was looked at", str(source))
    durable.write({target: image.source for target, image in images.items() if isinstance(image.source, bytes)})
