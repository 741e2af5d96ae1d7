"""The table of legal moves, enforced by the statements that move."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import resources

import pytest

from imgdiffd.job import ITEM_MOVES, JOB_MOVES, TERMINAL_JOB_STATES, ItemState, JobState
from imgdiffd.store.moves import move_items, move_job


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.executescript(resources.files("imgdiffd.store").joinpath("schema.sql").read_text("utf-8"))
        opened.execute("INSERT INTO profiles VALUES (1, 'x', 'x', '{}')")
        yield opened


def _put(connection: sqlite3.Connection, job: JobState, item: ItemState) -> None:
    connection.execute(
        "INSERT INTO jobs (id, name, source, sha256, profile_id, priority, state, created_at)"
        " VALUES (1, 'n', 's', 'h', 1, 0, ?, 0)",
        (job,),
    )
    connection.execute(
        "INSERT INTO items (id, job_id, profile_id, line, caption, caption_sha, stage, state, created_at, updated_at)"
        " VALUES (1, 1, 1, 1, 'c', x'00', 'rewrite', ?, 0, 0)",
        (item,),
    )


@pytest.mark.parametrize(("source", "target"), [*itertools.product(JobState, JobState)])
def test_a_job_moves_exactly_where_the_table_allows(
    connection: sqlite3.Connection, source: JobState, target: JobState
) -> None:
    _put(connection, source, ItemState.READY)
    moved = move_job(connection, 1, target, now=5.0)
    state, finished_at = connection.execute("SELECT state, finished_at FROM jobs").fetchone()
    legal = target in JOB_MOVES[source]
    assert moved is legal
    assert state == (target if legal else source)
    assert finished_at == (5.0 if legal and target in TERMINAL_JOB_STATES else None)


@pytest.mark.parametrize(("source", "target"), [*itertools.product(ItemState, ItemState)])
def test_an_item_moves_exactly_where_the_table_allows(
    connection: sqlite3.Connection, source: ItemState, target: ItemState
) -> None:
    _put(connection, JobState.ACTIVE, source)
    moved = move_items(connection, target, 5.0, "id = ?", (1,))
    state = connection.execute("SELECT state FROM items").fetchone()[0]
    legal = target in ITEM_MOVES[source]
    assert moved == int(legal)
    assert state == (target if legal else source)


@pytest.mark.parametrize(("source", "target"), [*itertools.product(ItemState, ItemState)])
def test_counts_follow_every_move(connection: sqlite3.Connection, source: ItemState, target: ItemState) -> None:
    _put(connection, JobState.ACTIVE, source)
    move_items(connection, target, 5.0, "id = ?", (1,), "reason = ?", ("why",))
    counted = connection.execute("SELECT stage, state, reason, n FROM counts WHERE n <> 0").fetchall()
    assert counted == connection.execute("SELECT stage, state, reason, 1 FROM items").fetchall()
    connection.execute("DELETE FROM items")
    assert connection.execute("SELECT sum(n) FROM counts").fetchone()[0] == 0
