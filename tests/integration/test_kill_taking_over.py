"""Killed with -9 while captions are brought under another profile: done again, it is as if nothing had happened."""

import atexit
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import anyio
import pytest

from imgdiffd.images.retention import named
from imgdiffd.images.sweep import delete, folders, now_ns, superfluous
from imgdiffd.job import JobState
from imgdiffd.store import Store
from tests.fakes.bench import CAPTIONS, OTHER_SIDES, Bench, bench, content
from tests.fakes.store_driver import submit
from tests.integration.daemon_process import _FORKS

pytestmark = pytest.mark.anyio

POINTS = int(os.environ.get("KILL_POINTS", "3"))


def _refilter(folder: str, environment: dict[str, str]) -> None:
    """The forked process, which is killed at its event DEATH_OF_DAEMON or tells how many there were."""
    from tests.integration.sudden_death import arm_daemon

    os.environ.update(environment)
    arm_daemon()

    async def run() -> None:
        async with bench(Path(folder)) as there:
            await there.store.refilter(OTHER_SIDES)

    anyio.run(run)
    atexit._run_exitfuncs()


def _status_of(folder: Path, **environment: str) -> int | None:
    process = _FORKS.Process(
        target=_refilter, args=(str(folder), {"IMGDIFFD_STATE_FOLDER": str(folder), **environment})
    )
    process.start()
    process.join(60)
    return process.exitcode


async def _tidy(store: Store, images: Path) -> None:
    """What the start of a daemon does."""
    await store.drop_unread_jobs()
    for path, items in folders(images):
        rows = await store.images(items)
        asked_ns = now_ns(images)
        delete(superfluous(path, rows, "all", asked_ns=asked_ns, started_ns=asked_ns))


def _events(folder: Path) -> int:
    (tally,) = folder.glob("tally.*")
    return int(tally.read_text())


def _files(images: Path) -> set[str]:
    return {str(path.relative_to(images)) for path in images.rglob("*.png")}


async def _all_named(there: Bench) -> set[str]:
    rows = [await there.store.images(items) for _, items in folders(there.images)]
    return {name for each in rows for row in each.values() for name in named(row)}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which captions have ended under one profile."""
    folder = tmp_path_factory.mktemp("before")

    async def make() -> None:
        async with bench(folder) as there:
            await submit(there.store, CAPTIONS)
            await there.finish()

    anyio.run(make)
    return folder


async def test_killed_at_drawn_points_it_is_done_again_as_a_whole(tmp_path: Path, before: Path) -> None:
    calm = shutil.copytree(before, tmp_path / "calm")
    assert _status_of(calm, DEATH_TALLY=str(tmp_path / "tally")) == 0
    events = _events(tmp_path)
    async with bench(calm) as there:
        await there.finish()
        expected = await content(there, 2)
    ends: Counter[JobState] = Counter()
    for point in random.Random(1).sample(range(events), POINTS):
        folder = shutil.copytree(before, tmp_path / str(point))
        assert _status_of(folder, DEATH_OF_DAEMON=str(point)) == -9, "the point was not reached"
        async with bench(folder) as there:
            ends.update(job.state for job in (await there.store.jobs())[:1])
            await _tidy(there.store, there.images)
            await there.store.refilter(OTHER_SIDES)
            await there.finish()
            done = max(job.id for job in await there.store.jobs())
            assert len(await there.store.jobs()) == 2
            assert await content(there, done) == expected
            assert _files(there.images) == await _all_named(there)
    assert ends[JobState.READING]
