"""Hints that something happened in a folder, straight from Linux's inotify(7).

Some hints may be missing, for a network folder all of them. The kernel's own interface is used because it distinguishes
a file renamed into place, which is complete, from one being written, and gives any name as it is, UTF-8 or not.
"""

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

_IN_MOVED_TO = 0x80
_IN_MASK = 0x8 | _IN_MOVED_TO | 0x100 | 0x400 | 0x800  # CLOSE_WRITE, MOVED_TO, CREATE, DELETE_SELF, MOVE_SELF
_IN_ONLYDIR = 0x1000000
_GONE = 0x400 | 0x800 | 0x2000 | 0x8000  # DELETE_SELF, MOVE_SELF, UNMOUNT, IGNORED
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_READ_BYTES = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Hint:
    """What happened since the last hint: names renamed into place; `gone` where no more hints will come."""

    renamed: frozenset[str]
    gone: bool


def _parse_events(data: bytes) -> Hint:
    """One hint for all the events in what one read returned."""
    renamed: set[str] = set()
    gone = False
    at = 0
    while at < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        if mask & _IN_MOVED_TO:
            renamed.add(os.fsdecode(data[at : at + length].rstrip(b"\0")))
        gone = gone or bool(mask & _GONE)
        at += length
    return Hint(frozenset(renamed), gone)


class FolderWatch:
    """A watch on one folder, as a context manager. Raises OSError on entry where it cannot be watched."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            path = ctypes.c_char_p(os.fsencode(self._folder))
            _checked(_libc.inotify_add_watch(self._descriptor, path, _IN_MASK | _IN_ONLYDIR))
        except OSError:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    async def wait_hint(self) -> Hint:
        """Return once something has happened."""
        await anyio.wait_readable(self._descriptor)
        return _parse_events(os.read(self._descriptor, _READ_BYTES))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
