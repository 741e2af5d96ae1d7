"""A disk that fails on demand: it wraps SQLite's VFS, counts writes, syncs and truncates, and refuses some of them.

It uses ctypes to wrap the functions of the library that Python's sqlite3 uses.
"""

import _sqlite3
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, cast, pointer

IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE, FULL = 778, 1034, 1546, 13  # SQLite's result codes

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)  # name is a raw pointer: SQLite reads around it
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(Structure):
    """struct sqlite3_vfs, with only the fields changed here; the rest is copied as raw bytes."""

    _fields_ = (
        ("version", c_int),
        ("file_bytes", c_int),
        ("path_bytes", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", _Open),
        ("others", c_void_p * 15),
    )


class _Methods(Structure):
    """struct sqlite3_io_methods; `others` are the methods left unchanged."""

    _fields_ = (
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", _Write),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("others", c_void_p * 13),
    )


def available() -> bool:
    """Whether ctypes can reach the SQLite that Python uses."""
    try:
        return bool(_library().sqlite3_vfs_find(None))
    except (AttributeError, OSError):
        return False


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    library.sqlite3_vfs_find.argtypes = (c_char_p,)
    library.sqlite3_vfs_register.argtypes = (POINTER(_Vfs), c_int)
    library.sqlite3_vfs_unregister.argtypes = (POINTER(_Vfs),)
    return library


class FaultyDisk:
    """`calls` counts writes, syncs and truncates, `syncs` only syncs; call number `fails_at` (from 0) is refused.

    With `lasting`, every later call is refused too, until `mend`. With `full`, the reason given is a full disk.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.syncs = 0
        self.fails_at: int | None = None
        self.lasting = False
        self.full = False
        self.refused: list[str] = []

    def mend(self) -> None:
        """Refuse no further calls."""
        self.fails_at = None

    def refuses(self, what: str) -> bool:
        """Count a call and return whether it must fail."""
        number, self.calls = self.calls, self.calls + 1
        self.syncs += what == "sync"
        hit = self.fails_at is not None and (number >= self.fails_at if self.lasting else number == self.fails_at)
        if hit:
            self.refused.append(what)
        return hit


@contextmanager
def faulty_disk() -> Iterator[FaultyDisk]:
    """Put every database opened inside the block on this disk; close them all before leaving."""
    library, disk = _library(), FaultyDisk()
    real = library.sqlite3_vfs_find(None)
    wrapped: dict[int, _Methods] = {}  # by the address of the methods that they wrap

    def methods_before(address: int) -> _Methods:
        own = cast(address, POINTER(_Methods)).contents
        write, truncate, sync = own.write, own.truncate, own.sync

        def on_write(file: int, data: int, count: int, offset: int) -> int:
            refused = disk.refuses("write")
            return (FULL if disk.full else IOERR_WRITE) if refused else int(write(file, data, count, offset))

        def on_truncate(file: int, size: int) -> int:
            return IOERR_TRUNCATE if disk.refuses("truncate") else int(truncate(file, size))

        def on_sync(file: int, flags: int) -> int:
            return IOERR_FSYNC if disk.refuses("sync") else int(sync(file, flags))

        copy = _Methods.from_buffer_copy(own)
        copy.write, copy.truncate, copy.sync = _Write(on_write), _Truncate(on_truncate), _Sync(on_sync)
        return copy

    def on_open(_vfs: int, name: int, file: int, flags: int, told: int) -> int:
        code = int(opened(cast(real, c_void_p), name, file, flags, told))
        methods = cast(file, POINTER(c_void_p))
        if methods[0]:
            address = int(methods[0])
            if address not in wrapped:
                wrapped[address] = methods_before(address)
            methods[0] = ctypes.addressof(wrapped[address])
        return code

    opened = real.contents.open
    vfs = _Vfs.from_buffer_copy(real.contents)
    vfs.name, vfs.next, vfs.open = b"faulty", None, _Open(on_open)
    library.sqlite3_vfs_register(pointer(vfs), 1)
    try:
        yield disk
    finally:
        library.sqlite3_vfs_unregister(pointer(vfs))
        library.sqlite3_vfs_register(real, 1)
