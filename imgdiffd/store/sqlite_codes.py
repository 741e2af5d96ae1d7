"""Which of SQLite's errors mean that a file is damaged, and which that a disk is full."""

import sqlite3

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}  # the latter: no room for the log's index


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is wrong, rather than the disk, the lock or the statement."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def is_full(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the disk has no room for what it was to write."""
    return getattr(error, "sqlite_errorcode", None) in _NO_ROOM
