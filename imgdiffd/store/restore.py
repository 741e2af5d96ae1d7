"""Puts a backup in the place of the database."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from imgdiffd.errors import StoreError, reason_of
from imgdiffd.store.backup import REPLACED, write_copy
from imgdiffd.store.connection import check, locked
from imgdiffd.store.damage import refuse_damaged

_LOGS = ("", "-wal", "-shm", "-journal")  # the database first: without it, its log is never taken for another's


def restore(backup: Path, database: Path) -> Path | None:
    """Put a checked copy of `backup` in the place of `database`; returns where the old one is kept, if there was one.

    Raises StoreError if a daemon uses the database or the copy cannot be made, ConfigurationError if `backup` is not a
    database of ours or is damaged. The old database is moved only once the copy is complete.
    """
    if not backup.is_file():
        raise StoreError(f"{backup}: no such file", hint="name a file that `imgdiffd backup` wrote")
    aside = database.with_name(f"{database.name}{REPLACED}-{time.strftime('%Y%m%d-%H%M%S')}")
    fresh = database.with_name(f"{database.name}.restoring")
    with locked(database):
        try:
            with closing(sqlite3.connect(backup, isolation_level=None)) as connection:
                refuse_damaged(connection, backup)
                check(connection, backup)
                write_copy(connection, fresh)
            replaced = database.exists()
            for log in _LOGS:
                old = database.with_name(database.name + log)
                if old.exists():
                    old.rename(aside.with_name(aside.name + log))
            fresh.rename(database)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{backup}: cannot be restored to {database}: {reason_of(error)}", hint="check the folder and its owner"
            ) from error
    return aside if replaced else None
