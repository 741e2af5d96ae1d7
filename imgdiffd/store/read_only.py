"""Opens a database that may be in use, or not, for reading alone, and leaves everything beside it as it was."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from imgdiffd.errors import StoreError
from imgdiffd.store.sqlite_codes import is_damage


@contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, closed on leaving. Raises StoreError and sqlite3.Error."""
    log = _log_of(path)
    had_log = log.exists()
    try:
        with closing(_connect(path, log)) as connection:
            yield connection
    finally:
        if not had_log and log.exists():
            _remove_log(path)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _connect(path: Path, log: Path) -> sqlite3.Connection:
    """A connection that cannot write: closing a writable one, if it is the last, would fold the log into the database.

    Where nobody has the database open, this makes `-wal` and `-shm` beside it. They would be in the daemon's way if
    they belonged to someone else, so others than the owner and root get a copy.
    """
    if log.exists() or os.geteuid() in (0, path.stat().st_uid):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema")
            return connection
        except sqlite3.Error as error:
            connection.close()
            if is_damage(error) or any(_state(log)):
                raise
    return _copy(path, log)


def _remove_log(path: Path) -> None:
    """Remove the empty log that reading has made, unless somebody else uses it by now: SQLite itself decides that.

    The last connection that may write takes it along when it is closed; there is nothing in it to be folded in.
    """
    name = f"{path.absolute().as_uri()}?mode=rw"
    # Where it is refused, a daemon is opening the database just now, or it may not be written: then the log stays.
    with suppress(sqlite3.Error), closing(sqlite3.connect(name, uri=True, timeout=0)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_schema")


def _copy(path: Path, log: Path) -> sqlite3.Connection:
    """A copy of a database that nobody has open, which SQLite deletes when it is closed."""
    copy = sqlite3.connect("", isolation_level=None)
    before = _state(path)
    # Immutable: SQLite needs no file beside the database, and takes no lock that a daemon that starts now would heed.
    name = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as connection:
        connection.backup(copy)
    if _state(path) != before or any(_state(log)):
        copy.close()
        raise StoreError(f"{path}: changed while it was copied", hint="try again: a daemon has started")
    return copy


def _state(file: Path) -> tuple[int, ...]:
    """What tells whether a file was written to: nothing while it is empty or not there."""
    found = file.stat() if file.exists() else None
    return (found.st_size, found.st_mtime_ns) if found and found.st_size else ()
