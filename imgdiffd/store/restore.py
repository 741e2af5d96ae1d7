"""Puts a backup in the place of the database."""

import sqlite3
import time
from pathlib import Path

from imgdiffd.errors import StoreDamagedError, StoreError, reason_of
from imgdiffd.store.backup import REPLACED, is_ours, newest_backup, write_copy
from imgdiffd.store.connection import check, locked
from imgdiffd.store.damage import refuse_damaged
from imgdiffd.store.read_only import read_only
from imgdiffd.store.sqlite_codes import is_damage

_LOGS = ("", "-wal", "-shm", "-journal")  # the database first: without it, its log is never taken for another's


def restore(backup: Path, database: Path) -> Path | None:
    """Put a checked copy of `backup` in the place of `database`; returns where the old one is kept, if there was one.

    Raises StoreError if a daemon uses the database, the copy cannot be made, or `backup` is damaged or no database of
    ours, and ConfigurationError if it is too new. The old database is moved only once the copy is complete.
    """
    _refuse_no_backup(backup, database)
    fresh = database.with_name(f"{database.name}.restoring")
    with locked(database):
        aside = _free_place(database)
        try:
            with read_only(backup) as connection:
                refuse_damaged(connection, backup)
                check(connection, backup)
                write_copy(connection, fresh)
            replaced = database.exists()
            for log in _LOGS:
                old = database.with_name(database.name + log)
                if old.exists():
                    old.rename(aside.with_name(aside.name + log))
            fresh.rename(database)
        except (sqlite3.Error, OSError, StoreDamagedError) as error:
            if isinstance(error, StoreDamagedError) or (isinstance(error, sqlite3.Error) and is_damage(error)):
                raise StoreError(f"{backup}: this backup is damaged", hint="name another backup") from error
            raise StoreError(
                f"{backup}: cannot be restored to {database}: {reason_of(error)}", hint="check the folder and its owner"
            ) from error
    return aside if replaced else None


def _free_place(database: Path) -> Path:
    """Where the old database goes: nothing lies there, however many restores there were in this second."""
    stem = f"{database.name}{REPLACED}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (stem, *(f"{stem}-{number}" for number in range(2, 10_000)))
    return next(place for name in names if not (place := database.with_name(name)).exists())


def _refuse_no_backup(backup: Path, database: Path) -> None:
    """Raise StoreError where the file cannot be a backup."""
    if backup.is_dir():
        reason = "is a folder, not a backup"
    elif not backup.exists():
        reason = "no such file"
    elif backup.exists() and database.exists() and backup.samefile(database):
        reason = "is the database itself"
    elif not is_ours(backup):
        reason = "is not a backup of imgdiffd's"
    else:
        return
    newest = newest_backup(database)
    found = f"; the newest here is {newest}" if newest else ""
    raise StoreError(f"{backup}: {reason}", hint=f"name a file that `imgdiffd backup` wrote{found}")
