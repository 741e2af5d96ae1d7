"""What recording and taking in may cost, in counts that no other load on the machine changes."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from imgdiffd.daemon.views import RECENT
from imgdiffd.job import JobState
from imgdiffd.store import Store, orders
from imgdiffd.store.connection import configure
from imgdiffd.store.read_pool import snapshot
from tests.benchmarks import dropping
from tests.benchmarks.asking import control_of
from tests.benchmarks.mill import Mill, fill, statements_counted
from tests.fakes.answers import captions
from tests.fakes.disk import FaultyDisk, available, faulty_disk
from tests.fakes.store_driver import submit

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not available(), reason="this Python's SQLite hides its VFS"),
]
CAPTIONS = 200
STAGES = 7
FILES = 1000
JOBS = 60
T = TypeVar("T")


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    """That of every database opened in the test; it only counts."""
    with faulty_disk() as disk:
        yield disk


@pytest.fixture
def statements() -> Iterator[Counter[str]]:
    """Of every connection opened in the test, by their first word."""
    with statements_counted() as counted:
        yield counted


async def test_results_share_their_statements_and_commits(
    tmp_path: Path, disk: FaultyDisk, statements: Counter[str]
) -> None:
    async with Store.open(tmp_path / "state.db") as store:
        await fill(store, CAPTIONS)
        statements.clear()
        calls, syncs = disk.calls, disk.syncs
        milled = await Mill(store, tmp_path).run()
        assert [job.state for job in await store.jobs()] == [JobState.DONE]
    assert milled.results == CAPTIONS * STAGES
    commits = statements["COMMIT"]
    assert statements["SAVEPOINT"] == 0
    assert commits < milled.results / 8
    assert syncs + commits <= disk.syncs <= syncs + commits + 20  # each durable by itself, and a few checkpoints
    assert statements.total() < 12 * milled.results  # each trigger that a statement sets off counts as one more
    assert disk.calls - calls < 8 * milled.results


async def test_small_files_dropped_at_once_share_their_commits(
    tmp_path: Path, disk: FaultyDisk, statements: Counter[str]
) -> None:
    dropping.drop(tmp_path / "inbox", FILES)
    async with Store.open(tmp_path / "state.db") as store:
        statements.clear()
        calls, syncs = disk.calls, disk.syncs
        await dropping.take(store, tmp_path, FILES)
        jobs = await store.jobs()
        assert [job.state for job in jobs] == [JobState.ACTIVE] * FILES
        assert sum(job.total for job in jobs) == 2 * FILES
    assert len(list((tmp_path / "inbox" / "done").iterdir())) == FILES
    assert statements["COMMIT"] < FILES / 8
    assert disk.syncs - syncs < FILES / 8 + 20
    assert statements.total() < 35 * FILES
    assert disk.calls - calls < 10 * FILES


async def test_the_status_of_many_jobs_is_a_few_questions(tmp_path: Path, statements: Counter[str]) -> None:
    async with Store.open(tmp_path / "state.db") as store:
        for number in range(JOBS):
            await fill(store, 2, 1 + 2 * number)
        mill = Mill(store, tmp_path)
        await mill.run()
        control = control_of(store, mill.scheduler, tmp_path)
        statements.clear()
        status = await control.status()
        assert statements.total() < JOBS
        assert status.job_counts == {JobState.DONE: JOBS}
        assert [(job.captions, job.sampled, job.samples) for job in status.jobs] == [(2, 2, 4)] * RECENT
        statements.clear()
        page = await control.jobs("all", JOBS, None)
        assert statements.total() < JOBS
        assert page.jobs[:RECENT] == status.jobs
        assert list(status.jobs) == [await control.job(job.id) for job in status.jobs]


async def test_status_costs_what_it_shows_however_many_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def counted(connection: sqlite3.Connection, question: Callable[[sqlite3.Connection], T]) -> T:
        connection.set_progress_handler(partial(steps.append, 1), 10)
        return snapshot(connection, question)

    async def cost(others: int) -> int:
        async with Store.open(tmp_path / f"{others}.db") as store:
            jobs = [await submit(store, captions(1, start=number), name=f"{number}") for number in range(others)]
            await store.overview(20, 20, 30)
            await store.pause(jobs[others // 2].id)
            steps.clear()
            seen = await store.overview(20, 20, 30)
            assert (seen.counts, len(seen.rows)) == ({JobState.ACTIVE: others - 1, JobState.PAUSED: 1}, 20)
            assert (len(seen.queue.waiting), sum(seen.queue.backlog.values())) == (30, others - 1)
            return len(steps)

    monkeypatch.setattr("imgdiffd.store.read_pool.snapshot", counted)
    few, many = await cost(80), await cost(800)
    assert many < 1.1 * few, (few, many)


async def test_cancelling_a_job_costs_the_same_after_many_others(tmp_path: Path) -> None:
    steps = []
    for others in (5, 150):
        database = tmp_path / f"{others}.db"
        async with Store.open(database) as store:
            for number in range(others + 1):
                job = (await submit(store, captions(2, start=1 + 2 * number), name=f"{number}.txt")).id
                if number < others:
                    await store.cancel(job)
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            configure(connection, writer=True)
            orders.cancel(connection, job, 1.0)
            counted: list[int] = []
            connection.set_progress_handler(partial(counted.append, 1), 10)
            assert orders.cancel_leftovers(connection, 1.0, job) == 2
            assert orders.cancel_leftovers(connection, 1.0, job) == 0
        steps.append(len(counted))
    assert steps[1] < 1.5 * steps[0], steps
