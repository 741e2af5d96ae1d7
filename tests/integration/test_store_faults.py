"""Every write, sync and truncate of the database refused in turn: what was acknowledged stays, the rest is redone."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from imgdiffd.errors import StoreError
from imgdiffd.job import TERMINAL_ITEM_STATES, JobState
from imgdiffd.pipeline import DEPTH, Stage
from imgdiffd.store import Store
from tests.fakes.disk import FaultyDisk, available, faulty_disk
from tests.fakes.store_driver import finish, progress_of, ready, record, submit

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not available(), reason="this Python's SQLite hides its VFS"),
]
CAPTIONS = 6
EVERY = int(os.environ.get("FAULT_STRIDE", "5"))  # FAULT_STRIDE=1 takes every single one


@dataclass
class Acknowledged:
    """What the store said is done."""

    jobs: int = 0
    stage: Stage | None = None  # that every caption has left
    everything: bool = False


async def _work(path: Path, disk: FaultyDisk, done: Acknowledged) -> None:
    """A daemon's life until the disk fails: a job, two stages of it, a pause, and an orderly end."""
    async with Store.open(path) as store:
        job = await submit(store, CAPTIONS)
        done.jobs = 1
        for _ in range(2):
            tasks = await ready(store)
            await record(store, tasks)
            done.stage = tasks[0].stage
        await store.pause(job.id)
        await store.resume(job.id)
        done.everything = disk.refused == []


async def _measure(folder: Path) -> int:
    """How often an undisturbed run writes, syncs and truncates."""
    with faulty_disk() as disk:
        await _work(folder / "calm.db", disk, Acknowledged())
        return disk.calls


def _is_whole(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok")


@pytest.mark.parametrize("full", [False, True], ids=["error", "full"])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
async def test_a_refused_system_call_loses_nothing_acknowledged(tmp_path: Path, full: bool, lasting: bool) -> None:
    calls = await _measure(tmp_path)
    assert calls > 20
    refused: set[str] = set()
    for number in range(int(full), calls, EVERY):
        path, done = tmp_path / f"{number}.db", Acknowledged()
        with faulty_disk() as disk:
            disk.fails_at, disk.lasting, disk.full = number, lasting, full
            try:
                await _work(path, disk, done)
            except StoreError:
                pass
            else:  # SQLite writes the log into the database when it closes; where that fails, the log simply stays
                assert done.everything or not lasting, f"call {number} failed and nobody was told"
            assert disk.refused, number
            refused.update(disk.refused)
        async with Store.open(path) as store:  # the disk is well again
            assert len(await store.jobs()) >= done.jobs, number
            depth = -1 if done.stage is None else DEPTH[done.stage]
            assert all(DEPTH[task.stage] > depth for task in await ready(store)), number
            await store.drop_unread_jobs()
            if not any(job.total == CAPTIONS for job in await store.jobs()):
                await submit(store, CAPTIONS)  # as the inbox does with a file that it still holds
            for job in await store.jobs():
                if job.state is JobState.PAUSED:
                    await store.resume(job.id)
            await finish(store)
            progress = await progress_of(store)
            ended = sum(progress.in_state(state) for state in TERMINAL_ITEM_STATES)
            assert ended == CAPTIONS, number
        assert _is_whole(path), number
    assert refused >= {"write", "sync"}
