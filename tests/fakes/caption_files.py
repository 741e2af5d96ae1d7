"""Caption files as tests write them, read through the one entrance."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from imgdiffd.captions import Entry, read_open
from imgdiffd.job import CaptionRecord


@contextmanager
def opened(content: bytes | str) -> Iterator[BinaryIO]:
    """A file on the disk with this content: another process can read it too."""
    with tempfile.TemporaryFile() as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        yield file


def entries(content: bytes | str, name: str, field: str = "") -> list[Entry]:
    """Everything in a file of this name."""
    with opened(content) as file:
        return list(read_open(file, name, field))


def texts(content: bytes | str, name: str, field: str = "") -> list[str]:
    """The captions in it."""
    return [entry.text for entry in entries(content, name, field) if isinstance(entry, CaptionRecord)]


class Endless(io.RawIOBase):
    """`head`, then `filler` for ever up to `size` bytes, then `tail`: a huge file without the disk space."""

    def __init__(self, head: bytes, filler: bytes, size: int, tail: bytes) -> None:
        self._parts = (head, filler, size - len(head) - len(tail), tail)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        head, _, middle, tail = self._parts
        self._at = (0, self._at, len(head) + middle + len(tail))[whence] + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        head, filler, middle, tail = self._parts
        if self._at < len(head):
            data = head[self._at :]
        elif self._at < len(head) + middle:
            phase = (self._at - len(head)) % len(filler)
            data = (filler * (len(buffer) // len(filler) + 2))[phase:][: len(head) + middle - self._at]
        else:
            data = tail[self._at - len(head) - middle :]
        data = data[: len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
