"""The writer: shared transactions, separate fates, and callers that leave."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from imgdiffd.errors import StoreError, StoreFullError
from imgdiffd.store.connection import connected, run_on
from imgdiffd.store.damage import SqliteErrors
from imgdiffd.store.writer import MAX_GROUP, Writer

pytestmark = pytest.mark.anyio


class Gate:
    """An operation that stops the writer's thread until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.entered.set()
        if not self.opened.wait(timeout=30):
            raise TimeoutError("the gate was never opened")


def insert(number: int) -> Callable[[sqlite3.Connection], int]:
    def operation(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return operation


def refusal(path: Path) -> SqliteErrors:
    return SqliteErrors(path, lambda error: None)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[Writer, list[str]]]:
    statements: list[str] = []
    async with connected(path, writer=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY) STRICT")
        await run_on(connection, lambda raw: raw.set_trace_callback(statements.append))
        async with Writer(connection, refusal(path)).running() as writer:
            yield writer, statements


def numbers(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]
    finally:
        connection.close()


async def _queued_behind(
    gate: Gate, writer: Writer, operations: list[Callable[[sqlite3.Connection], object]]
) -> list["asyncio.Task[object]"]:
    """Tasks for the gate and the operations, all of them waiting while the gate holds the writer."""
    loop = asyncio.get_running_loop()
    first: asyncio.Task[object] = loop.create_task(writer.submit(gate))
    await anyio.to_thread.run_sync(gate.entered.wait)
    tasks = [loop.create_task(writer.submit(operation)) for operation in operations]
    await anyio.wait_all_tasks_blocked()
    return [first, *tasks]


async def test_many_operations_share_few_commits(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path / "n.db") as (writer, statements):
        tasks = await _queued_behind(gate, writer, [insert(n) for n in range(100)])
        gate.opened.set()
        assert await asyncio.gather(*tasks[1:]) == list(range(100))
        assert statements.count("COMMIT") == 2
        assert not any("SAVEPOINT" in statement for statement in statements), "each copies every page that is touched"
    assert numbers(tmp_path / "n.db") == list(range(100))


async def test_a_group_is_bounded(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path / "n.db") as (writer, statements):
        tasks = await _queued_behind(gate, writer, [insert(n) for n in range(MAX_GROUP + 1)])
        gate.opened.set()
        await asyncio.gather(*tasks)
        assert statements.count("COMMIT") >= 3


async def test_a_failing_operation_affects_only_its_caller(tmp_path: Path) -> None:
    def half_done(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (50)")
        raise LookupError("half done")

    gate = Gate()
    async with opened(tmp_path / "n.db") as (writer, _):
        tasks = await _queued_behind(gate, writer, [insert(1), half_done, insert(1), insert(2)])
        gate.opened.set()
        results = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], LookupError)
    assert isinstance(results[2], StoreError)
    assert isinstance(results[2].__cause__, sqlite3.IntegrityError)
    assert results[3] == 2
    assert numbers(tmp_path / "n.db") == [1, 2]


async def test_a_cancelled_caller_does_not_wound_the_transaction(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path / "n.db") as (writer, statements):
        tasks = await _queued_behind(gate, writer, [insert(1), insert(2), insert(3)])
        tasks[0].cancel()  # its operation is in the open transaction
        tasks[2].cancel()  # its operation still waits
        gate.opened.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, int, asyncio.CancelledError, int]
        assert await writer.submit(insert(4)) == 4
        assert "ROLLBACK" not in statements
    assert numbers(tmp_path / "n.db") == [1, 2, 3, 4]


async def test_a_broken_transaction_keeps_nothing_and_tells_callers(tmp_path: Path) -> None:
    def undoes_all(connection: sqlite3.Connection) -> None:  # as SQLite itself does on a full disk
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    gate = Gate()
    async with opened(tmp_path / "n.db") as (writer, _):
        tasks = await _queued_behind(gate, writer, [insert(1), undoes_all, insert(2)])
        gate.opened.set()
        results = await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert [isinstance(result, StoreError) for result in results] == [True, True, False]
    assert numbers(tmp_path / "n.db") == [2]


def too_much(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO numbers VALUES (1)")
    connection.execute("CREATE TABLE big AS SELECT zeroblob(1000000) AS b")


def pages(connection: sqlite3.Connection, most: int) -> None:
    connection.execute(f"PRAGMA max_page_count = {most}")  # SQLite says SQLITE_FULL beyond, as on a full disk


async def test_a_full_disk_is_reported_and_nothing_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path / "n.db") as (writer, _):
        await run_on(writer._connection, lambda raw: pages(raw, 60))
        with pytest.raises(StoreFullError, match="the disk is full"):
            await writer.submit(too_much)
        assert await writer.submit(insert(2)) == 2
    assert numbers(tmp_path / "n.db") == [2]


async def test_where_room_can_be_made_a_change_is_made_once(tmp_path: Path) -> None:
    asked = []
    async with connected(tmp_path / "n.db", writer=True) as connection:
        await connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT")
        await run_on(connection, lambda raw: pages(raw, 60))

        def make_room() -> bool:
            asked.append(1)
            return len(asked) == 1

        def growing(raw: sqlite3.Connection) -> None:
            if asked:
                pages(raw, 100_000)
            too_much(raw)

        async with Writer(connection, refusal(tmp_path), make_room).running() as writer:
            await writer.submit(growing)
    assert asked == [1]
    assert numbers(tmp_path / "n.db") == [1]


async def test_leaving_writes_what_still_waits(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path / "n.db") as (writer, _):
        tasks = await _queued_behind(gate, writer, [insert(1), insert(2)])
        gate.opened.set()
    assert await asyncio.gather(*tasks[1:]) == [1, 2]
    assert numbers(tmp_path / "n.db") == [1, 2]
    with pytest.raises(StoreError, match="closed"):
        await writer.submit(insert(3))


async def test_cancelling_the_callers_still_writes_what_waits(tmp_path: Path) -> None:
    gate = Gate()
    with anyio.CancelScope() as scope:
        async with opened(tmp_path / "n.db") as (writer, _):
            tasks = await _queued_behind(gate, writer, [insert(1)])
            gate.opened.set()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert await asyncio.gather(*tasks[1:]) == [1]
    assert numbers(tmp_path / "n.db") == [1]


async def test_only_groups_that_were_kept_are_announced(tmp_path: Path) -> None:
    kept: list[list[int]] = []
    path = tmp_path / "n.db"
    async with connected(path, writer=True) as connection:
        await connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT")
        async with Writer(connection, refusal(path), on_commit=lambda: kept.append(numbers(path))).running() as writer:
            await writer.submit(insert(1))
            with pytest.raises(StoreError):
                await writer.submit(insert(1))
            await writer.submit(insert(2))
    assert kept == [[1], [1, 2]]
