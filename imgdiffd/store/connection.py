"""Opens the database: locks it against a second daemon, configures the connection, checks the schema version."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import TypeVar

import aiosqlite
from anyio import CancelScope

from imgdiffd.errors import ConfigurationError, ImgdiffdError, StoreError, reason_of
from imgdiffd.store.backup import APPLICATION_ID
from imgdiffd.store.damage import damaged, full, refuse_damaged
from imgdiffd.store.migration import OLDEST_READABLE, SCHEMA_VERSION, bring_up_to_date, version_of
from imgdiffd.store.prune import let_shrink
from imgdiffd.store.sqlite_codes import is_damage

BUSY_TIMEOUT_S = 30.0
CHECKPOINT_PAGES = 4000  # 16 MiB of log, half the ballast; a long log copies busy pages back less often
CACHE_KIB = 32_000  # the writer's; holds every page that a batch touches among a million captions

T = TypeVar("T")


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Hold `<database>.lock`, so that at most one daemon writes. Raises StoreError naming the file and its holder.

    The file is never removed: otherwise two daemons could lock two different files of that name. The kernel drops the
    lock when the process ends, however it ends.
    """
    path = _lock_of(database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    except OSError as error:
        raise _closed(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _in_use(database, _written_in(descriptor)) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(database: Path) -> str | None:
    """The number of the process that holds the lock of `database`; None where none does that this user may see."""
    try:
        descriptor = os.open(_lock_of(database), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def refuse_held(database: Path) -> None:
    """Raise StoreError, as `locked` does, where another process holds the lock of `database`, or this may not."""
    lock = _lock_of(database)
    if lock.exists() and not os.access(lock, os.R_OK | os.W_OK, effective_ids=True):
        raise _closed(lock, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    if (holder := holder_of(database)) is not None:
        raise _in_use(database, holder)


def _lock_of(database: Path) -> Path:
    return database.with_name(database.name + ".lock")


def _closed(lock: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{lock}: cannot be opened: {reason_of(error)}", hint="check the owner of this file and its folder"
    )


def _written_in(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"


def _in_use(database: Path, holder: str) -> StoreError:
    return StoreError(
        f"{database}: in use by another daemon (process {holder} holds {_lock_of(database).name})",
        hint="stop that daemon, or set another state_folder",
    )


def configure(connection: sqlite3.Connection, *, writer: bool) -> None:
    """Make the settings that SQLite does not keep in the file."""
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    if writer:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # NORMAL loses acknowledged commits at a power cut
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    else:
        connection.execute("PRAGMA query_only = ON")


def check(connection: sqlite3.Connection, database: Path) -> None:
    """Raise ConfigurationError unless the database is ours and has a schema version that we can read."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise ConfigurationError(f"{database}: not an imgdiffd database", hint="configure another file")
    version = version_of(connection)
    if not OLDEST_READABLE <= version <= SCHEMA_VERSION:
        raise ConfigurationError(
            f"{database}: has schema version {version}, but this imgdiffd needs {OLDEST_READABLE} to {SCHEMA_VERSION}",
            hint="install the imgdiffd that wrote it, or a newer one",
        )


def version_in(database: Path, *, whole: bool) -> int | None:
    """The schema version of the database at `database`; None where there is none yet. Changes nothing.

    Raises as `connected` does for a file that cannot be used; of damage, only with `whole`, which reads all of it.
    """
    if not database.exists():
        return None
    if not database.is_file():
        raise ConfigurationError(f"{database} is not a file", hint="move it away, or set another state_folder")
    for file in (database, *(database.with_name(database.name + end) for end in ("-wal", "-shm"))):
        if file.exists() and not os.access(file, os.R_OK | os.W_OK, effective_ids=True):
            raise ConfigurationError(
                f"{file}: this user may not read and write it", hint="run imgdiffd as the user that it belongs to"
            )
    # Without a log there is nothing but the file, and reading it as one that never changes makes none.
    how = "mode=ro" if database.with_name(database.name + "-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?{how}", uri=True)) as connection:
            if _is_empty(connection):
                return None
            check(connection, database)
            if whole:
                refuse_damaged(connection, database)
            return version_of(connection)
    except sqlite3.Error as error:
        raise _unusable(database, error) from error


def _unusable(database: Path, error: sqlite3.Error) -> ImgdiffdError:
    if is_damage(error):
        return damaged(database, error)
    return full(database, error) or StoreError(
        f"{database}: cannot be used: {error}", hint="check the disk and the file's owner"
    )


def _is_empty(connection: sqlite3.Connection) -> bool:
    return not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]


def _create(connection: sqlite3.Connection) -> None:
    script = resources.files("imgdiffd.store").joinpath("schema.sql").read_text("utf-8")
    connection.executescript(
        f"PRAGMA auto_vacuum = INCREMENTAL;\nBEGIN IMMEDIATE;\n{script}\nPRAGMA application_id = {APPLICATION_ID};\n"
        f"PRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;"
    )


@asynccontextmanager
async def connected(database: Path, *, writer: bool) -> AsyncIterator[aiosqlite.Connection]:
    """Open a configured connection; the writer's also creates the schema or brings it up to date.

    The writer's first reads all of it to see whether it is damaged. Raises ConfigurationError if the file is not ours
    or too new, StoreDamagedError if it is damaged, StoreFullError if the disk is full, and StoreError if it cannot be
    opened.
    Closing waits for the running statement, even under cancellation.
    """
    try:
        connection = await aiosqlite.connect(database, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreError(f"{database}: cannot be opened: {error}", hint="check the path and its owner") from error
    try:
        try:
            await run_on(connection, lambda raw: _prepare(raw, database, writer=writer))
        except sqlite3.Error as error:
            raise _unusable(database, error) from error
        yield connection
    finally:
        with CancelScope(shield=True):
            await connection.close()


@contextmanager
def opened_to_write(database: Path) -> Iterator[sqlite3.Connection]:
    """The database for this thread alone, made or brought up to date; transactions are its user's to begin and end.

    Raises as `locked` and `connected` do.
    """
    with locked(database):
        try:
            connection = sqlite3.connect(database, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise _unusable(database, error) from error
        with closing(connection):
            try:
                _prepare(connection, database, writer=True)
            except sqlite3.Error as error:
                raise _unusable(database, error) from error
            yield connection


def _prepare(connection: sqlite3.Connection, database: Path, *, writer: bool) -> None:
    if writer and _is_empty(connection):
        _create(connection)
    check(connection, database)
    if writer:
        refuse_damaged(connection, database)
        bring_up_to_date(connection, database)
        let_shrink(connection, database)
    configure(connection, writer=writer)


async def run_on(connection: aiosqlite.Connection, function: Callable[[sqlite3.Connection], T]) -> T:
    """Run `function` in the connection's own thread, in one hop.

    aiosqlite offers only one coroutine per statement, and each thread hop costs more than the statement itself. The two
    private names are used only here, and a test fails if a release of aiosqlite drops them.
    """
    result: T = await connection._execute(lambda: function(connection._conn))  # type: ignore[no-untyped-call]
    return result
