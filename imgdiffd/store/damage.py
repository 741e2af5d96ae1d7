"""Recognises a database that is damaged, emptied or gone, and says how to get it back."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from imgdiffd.errors import StoreDamagedError, StoreError, StoreFullError
from imgdiffd.images.sweep import folders
from imgdiffd.store.backup import newest_backup
from imgdiffd.store.sqlite_codes import is_damage, is_full


def full(database: Path, error: sqlite3.Error) -> StoreFullError | None:
    """The error for a disk without room for the database, if that is what SQLite says."""
    if not is_full(error):
        return None
    return StoreFullError(f"{database}: the disk is full: the database cannot grow", hint="free some disk space")


def damaged(database: Path, found: object) -> StoreDamagedError:
    """The error for a damaged database: one line with what SQLite found and what to do."""
    return StoreDamagedError(f"{database}: the database is damaged: {found}", hint=_way_back(database))


def refuse_damaged(connection: sqlite3.Connection, database: Path) -> None:
    """Read the whole database and raise StoreDamagedError if anything in it is wrong.

    It takes about two seconds a GB, or as long as the disk does. Raises sqlite3.Error if the disk refuses.
    """
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        raise damaged(database, error) from error
    if found != "ok":
        raise damaged(database, " ".join(str(found).split()))


def refuse_lost(database: Path, images: Path) -> None:
    """Raise StoreDamagedError if the database is missing or empty although its images or its log are there.

    A new database would let the daemon delete all that the folder `images` holds, since no row names it, and SQLite
    the log.
    """
    if database.exists() and database.stat().st_size:
        return
    log = database.with_name(database.name + "-wal")
    if log.exists() and log.stat().st_size:
        left, what = log, "the last changes"
    elif any(next(folder.iterdir(), None) for folder, _ in folders(images)):
        left, what = images, "the images"
    else:
        return
    state = "is empty" if database.exists() else "does not exist"
    raise StoreDamagedError(
        f"{database} {state}, but {left} holds {what} of a database",
        hint=f"{_way_back(database)}; to begin with nothing, move {left} away",
    )


class SqliteErrors:
    """Turns what SQLite refuses on a database in use into our errors; `on_damage` is told of damage."""

    def __init__(self, database: Path, on_damage: Callable[[StoreDamagedError], None]) -> None:
        self._database = database
        self._on_damage = on_damage

    def of(self, error: sqlite3.Error, what: str) -> StoreError:
        """The error for callers; `what` says which kind of access was refused."""
        if is_damage(error):
            found = damaged(self._database, error)
            self._on_damage(found)
            return found
        return full(self._database, error) or StoreError(
            f"the database {what}: {error}", hint="check the disk's health"
        )


def _way_back(database: Path) -> str:
    backup = newest_backup(database)
    if backup is not None:
        return f"stop the daemon and run `imgdiffd restore {backup}`, the newest backup here"
    rescue = f"`sqlite3 {database} .recover | sqlite3 rescued.db` saves what can be read" if database.exists() else ""
    return "; without one, ".join(filter(None, ("`imgdiffd restore FILE` puts a backup in its place", rescue)))
