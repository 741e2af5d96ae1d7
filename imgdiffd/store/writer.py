"""The one writer: operations queue up, share a transaction, and get their answers once it is on disk."""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import aiosqlite
from anyio import CancelScope

from imgdiffd.errors import StoreError, StoreFullError
from imgdiffd.store.connection import run_on
from imgdiffd.store.damage import SqliteErrors

MAX_GROUP = 256  # operations in one transaction
MAX_GROUP_S = 0.05  # a transaction takes no further operations after this, so that none waits long

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    operation: Operation
    answer: "asyncio.Future[Any]"


def _run_plain(connection: sqlite3.Connection, operation: Operation) -> _Outcome:
    try:
        return _Outcome(operation(connection))
    except Exception as error:
        raise _OperationError from error


def _run_apart(connection: sqlite3.Connection, operation: Operation) -> _Outcome:
    connection.execute("SAVEPOINT operation")
    try:
        outcome = _Outcome(operation(connection))
    except Exception as error:
        if not connection.in_transaction:  # a full disk or an I/O error rolled back the whole transaction
            raise
        connection.execute("ROLLBACK TO operation")
        outcome = _Outcome(error=error)
    connection.execute("RELEASE operation")
    return outcome


class _OperationError(Exception):
    """An operation raised, so the whole group was rolled back."""


def _run_all(
    connection: sqlite3.Connection,
    operations: Sequence[Operation],
    run_one: Callable[[sqlite3.Connection, Operation], _Outcome],
) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    taken = 0
    until = time.monotonic() + MAX_GROUP_S
    try:
        connection.execute("BEGIN IMMEDIATE")
        for operation in operations:
            taken += 1
            outcomes.append(run_one(connection, operation))
            if time.monotonic() > until:
                break
        connection.execute("COMMIT")
    except Exception as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, _OperationError):
            raise
        return [_Outcome(error=error)] * max(taken, 1)
    return outcomes


def run_group(connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[_Outcome]:
    """Run as many of `operations` as fit the time limit, at least one, in one durable transaction.

    If an operation raises, only that one is undone: the group runs again with a savepoint before each operation. It is
    not the first try because a savepoint makes SQLite copy every page touched. If the transaction itself fails, nothing
    is kept and every operation in it gets that error.
    """
    try:
        return _run_all(connection, operations, _run_plain)
    except _OperationError:
        return _run_all(connection, operations, _run_apart)


class Writer:
    """Takes operations from any number of tasks and runs them on its one connection.

    `submit` returns after the commit. A caller that is cancelled only stops waiting: its operation still commits or
    fails. On a full disk `on_full` is called; if it returns True, it has made room and the operations run again.
    `on_commit` is called after every group of which something was kept.
    """

    def __init__(
        self,
        connection: aiosqlite.Connection,
        refusal: SqliteErrors,
        on_full: Callable[[], bool] = lambda: False,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._refusal = refusal
        self._on_full = on_full
        self._on_commit = on_commit
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    async def submit(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """The operation's result, once it is durable. Raises its exception; StoreError for database errors."""
        if self._closing:
            raise StoreError("the database is closed", hint="start the daemon again")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(operation, answer))
        self._wake.set()
        return cast(T, await answer)

    async def _run(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            group = [self._queue[index] for index in range(min(len(self._queue), MAX_GROUP))]
            operations = [waiting.operation for waiting in group]
            outcomes = await run_on(self._connection, partial(run_group, operations=operations))
            errors = [self._as_ours(outcome.error) for outcome in outcomes]
            if all(isinstance(error, StoreFullError) for error in errors) and self._on_full():
                continue  # nothing was kept, and the queue is unchanged
            for _ in outcomes:
                self._queue.popleft()
            for waiting, outcome, error in zip(group, outcomes, errors, strict=False):
                if waiting.answer.done():  # its caller was cancelled
                    continue
                if error is None:
                    waiting.answer.set_result(outcome.value)
                else:
                    waiting.answer.set_exception(error)
            if None in errors:
                self._on_commit()

    def _as_ours(self, error: Exception | None) -> Exception | None:
        if not isinstance(error, sqlite3.Error):
            return error
        ours = self._refusal.of(error, "refused a write")
        ours.__cause__ = error
        return ours

    def _fail_all(self, task: "asyncio.Task[None]") -> None:
        self._closing = True
        error = None if task.cancelled() else task.exception()
        while self._queue:
            answer = self._queue.popleft().answer
            if not answer.done():
                failure = StoreError("the database writer has ended", hint="start the daemon again")
                failure.__cause__ = error
                answer.set_exception(failure)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Writer"]:
        """Run the writer in its own task, which its users cannot cancel; leaving waits until the queue is empty."""
        task = asyncio.get_running_loop().create_task(self._run(), name="database writer")
        task.add_done_callback(self._fail_all)
        try:
            yield self
        finally:
            self._closing = True
            self._wake.set()
            with CancelScope(shield=True):
                await task
