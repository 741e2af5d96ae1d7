"""Copies the database while it is in use, and finds copies beside it."""

import sqlite3
from contextlib import closing
from pathlib import Path

from imgdiffd import durable
from imgdiffd.errors import StoreError, reason_of
from imgdiffd.store.read_only import read_only
from imgdiffd.store.sqlite_codes import is_damage

APPLICATION_ID = 0x496D4469  # "ImDi"; marks a database as ours, for this package and for `file`
FOLDER = "backups"  # beside the database: the place where a backup is found without being named
REPLACED = ".replaced"
SAMPLES_SKIPPED = 10**9

_HEADER_BYTES = 72  # of SQLite's file format; the last four are the application id
_MAGIC = b"SQLite format 3\0"


def write_copy(connection: sqlite3.Connection, target: Path, change: str = "") -> None:
    """Write a complete, checked and durable copy to `target`, or nothing; `change` is run on the copy.

    The copy shows the database at one moment, and no writer has to wait. Raises sqlite3.Error and OSError.
    """
    partial = target.with_name(target.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            connection.backup(copy)  # in one step: in several it would begin again at every commit
            copy.execute("PRAGMA journal_mode = DELETE")  # a single file, without a write-ahead log
            copy.executescript(change)
            if (found := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(f"damaged: {found}")
        durable.move(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def back_up(database: Path, target: Path) -> None:
    """Copy `database` to `target`, also while a daemon works with it. The images are not part of it.

    In the copy the numbers of samples go on far behind those in use, so that a daemon that continues from it gives none
    a second time: programs that follow `/events` would miss a sample whose number they have seen. Raises StoreError if
    the copy cannot be made, or if `target` exists.
    """
    if not database.exists():
        raise StoreError(f"{database}: no such database", hint="start the daemon once, or name other settings")
    if target.exists():
        raise StoreError(f"{target} exists already", hint="name another file: a backup replaces nothing")
    skip = f"UPDATE sqlite_sequence SET seq = seq + {SAMPLES_SKIPPED} WHERE name IN ('samples', 'removal_samples')"
    try:
        with read_only(database) as connection:
            write_copy(connection, target, skip)
    except (sqlite3.Error, OSError) as error:
        hint = f"the backup takes {(database.stat().st_size >> 20) + 1} MiB, in a folder that you may write to"
        if isinstance(error, sqlite3.Error) and is_damage(error):
            hint = "`imgdiffd check` says how to get the database back"
        raise StoreError(f"{database}: cannot be backed up to {target}: {reason_of(error)}", hint=hint) from error


def newest_backup(database: Path) -> Path | None:
    """The newest copy of `database` that lies beside it or in `backups`; None without any."""
    places = [*database.parent.glob(f"{database.name}.*"), *(database.parent / FOLDER).glob("*")]
    found = [path for path in places if not path.name.startswith(database.name + REPLACED) and is_ours(path)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def is_ours(path: Path) -> bool:
    """Whether this is a file that begins as our databases do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    return header.startswith(_MAGIC) and header[-4:] == APPLICATION_ID.to_bytes(4)
