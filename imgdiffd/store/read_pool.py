"""A few read connections beside the writer; each question gets its own snapshot."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiosqlite
from anyio import Semaphore

from imgdiffd.store.connection import connected, run_on
from imgdiffd.store.damage import SqliteErrors

READ_CONNECTIONS = 2  # a page of an export must not hold up the scheduler

T = TypeVar("T")


def snapshot(connection: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
    """Answer `question` as of one moment, however many statements it takes."""
    connection.execute("BEGIN")
    try:
        return question(connection)
    finally:
        connection.execute("ROLLBACK")


class ReadPool:
    """Answers questions in the connections' threads. A question sees every commit made before it was asked."""

    def __init__(self, connections: list[aiosqlite.Connection], refusal: SqliteErrors) -> None:
        self._free = connections
        self._refusal = refusal
        self._room = Semaphore(len(connections))

    async def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `question`. Raises StoreError for database errors. May be cancelled at any time."""
        return await self._run(lambda raw: snapshot(raw, question))

    async def checkpoint(self) -> None:
        """Move committed pages from the log into the database, without making anybody wait."""
        await self._run(lambda raw: raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())

    async def _run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        async with self._room:
            connection = self._free.pop()
            try:
                return await run_on(connection, function)
            except sqlite3.Error as error:
                raise self._refusal.of(error, "cannot be read") from error
            finally:
                self._free.append(connection)

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Path, refusal: SqliteErrors) -> AsyncIterator["ReadPool"]:
        """Open the pool; its connections are closed on leaving."""
        async with AsyncExitStack() as stack:
            yield cls(
                [await stack.enter_async_context(connected(database, writer=False)) for _ in range(READ_CONNECTIONS)],
                refusal,
            )
