"""Killed with -9 at any point and started again, the daemon finishes with nothing lost and nothing doubled.

Points are counted, not timed: the n-th statement that writes to the database or file touched by the daemon, the n-th
file touched by a worker. Each seed draws a point from those of an undisturbed run and replays alone with
`pytest -k seed137`. `KILL_POINTS=200 pytest ...` draws more.
"""

import os
import random
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from imgdiffd.durable import TEMPORARY_PREFIX
from imgdiffd.job import TERMINAL_ITEM_STATES
from imgdiffd.pipeline import Pipeline
from imgdiffd.store import Reader, SampleRow
from tests.integration.daemon_process import LIMIT_S, daemon, drop

POINTS = int(os.environ.get("KILL_POINTS", "3"))
ANIMALS = ("cat", "dog", "horse", "cow", "sheep", "bear")
PLACES = ("park", "kitchen", "street", "field")
CAPTIONS = [f"a {animal} in the {place}" for animal in ANIMALS for place in PLACES]
VICTIMS = ("daemon", "worker", "all")  # the last: the daemon with its workers
_ARM_DAEMON = "from tests.integration.sudden_death import arm_daemon\narm_daemon()\n"
_WORKER = """
import sys
from tests.integration.sudden_death import arm_worker
from imgdiffd.testing.worker import PULSE_S, FakeEngine
from imgdiffd.worker.serve import serve
arm_worker()
sys.exit(serve(FakeEngine, pulse_s=PULSE_S))
"""
WORKER = (sys.executable, "-P", "-c", _WORKER)
ROOT = str(Path(__file__).parents[2])

Facts = list[tuple[object, ...]]


@dataclass(frozen=True)
class Calm:
    """An undisturbed run: its samples, and how many events a kill may come at, in the daemon and in each worker."""

    facts: Facts
    daemon_events: int
    worker_events: tuple[int, ...]


def _facts(sample: SampleRow) -> tuple[object, ...]:
    """What must not depend on how often the daemon was killed."""
    return (
        sample.caption1,
        sample.caption2,
        sample.region,
        sample.box,
        sample.text1,
        sample.text2,
        sample.left,
        sample.difference,
        sample.generate_seed,
        tuple(sorted(sample.scores.items())),
    )


def _named(folder: Path) -> set[str]:
    """Every image that a row names."""
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        rows = connection.execute(
            "SELECT image1 FROM pairs UNION SELECT image2 FROM pairs"
            " UNION SELECT left_image FROM samples UNION SELECT right_image FROM samples"
        ).fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        compared = "SELECT count(*) FROM pairs WHERE scores LIKE '%clip_image_cosine%'"
        assert connection.execute(f"SELECT ({compared}) = count(*) AND count(*) > 0 FROM previews").fetchone()[0]
    return {name for (name,) in rows if name}


def _present(folder: Path) -> set[str]:
    images = folder / "pictures"
    return {str(path.relative_to(images)) for path in images.rglob("*") if path.is_file()}


def _check(folder: Path) -> Facts:
    """Every caption ended once, every image named is whole, and no other is there; returns the samples' facts."""
    with Reader.open(folder / "state.db") as reader:
        samples = list(reader.samples())
        jobs, progress = reader.jobs(), reader.funnel().progress[Pipeline.REPLACEMENT]
    (job,) = jobs
    assert (job.total, job.duplicates, job.duplicate_of) == (len(CAPTIONS), 0, None)
    assert sum(progress.in_state(state) for state in TERMINAL_ITEM_STATES) == len(CAPTIONS)
    assert progress.total == len(CAPTIONS)
    assert len({(sample.item, sample.region) for sample in samples}) == len(samples)
    named = _named(folder)
    assert _present(folder) == named
    for name in named:
        with Image.open(folder / "pictures" / name) as image:
            image.load()
    assert [path.name for path in (folder / "inbox").iterdir() if path.is_file()] == []
    assert [path.name for path in (folder / "inbox" / "done").iterdir()] == ["captions.txt"]
    return sorted(_facts(sample) for sample in samples)


def _unfinished(folder: Path) -> list[Path]:
    return [path for path in (folder / "pictures").rglob(f"{TEMPORARY_PREFIX}*") if path.is_file()]


def _finish(folder: Path) -> None:
    """The next start ends the work; what a worker left that outlived its daemon goes after one more."""
    with daemon(folder) as running:
        running.wait_done()
        assert running.stop() == 0
    if _unfinished(folder):
        with daemon(folder) as running:
            running.wait(lambda status: not _unfinished(folder), "a tidy image folder")
            assert running.stop() == 0


def _tallies(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.parent.glob(f"{folder.name}.tally.*")]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    folder = tmp_path_factory.mktemp("calm") / "state"
    drop(folder, "captions.txt", CAPTIONS)
    tally = f"{folder}.tally"
    with daemon(folder, worker=WORKER, before=_ARM_DAEMON, PYTHONPATH=ROOT, DEATH_TALLY=tally) as running:
        running.wait_done()
        assert running.stop() == 0
    facts = _check(folder)
    assert len(facts) > len(CAPTIONS) // 2
    *worker_events, daemon_events = sorted(_tallies(folder))
    assert len(worker_events) == 2
    assert daemon_events > 10 * len(CAPTIONS)
    return Calm(facts, daemon_events, tuple(worker_events))


@pytest.mark.parametrize("seed", range(POINTS), ids=lambda seed: f"seed{seed}")
def test_killed_at_a_drawn_point_it_ends_with_the_same_samples(tmp_path: Path, seed: int, calm: Calm) -> None:
    draw, folder, fuse = random.Random(seed), tmp_path / "state", tmp_path / "fuse"
    victim = VICTIMS[seed % len(VICTIMS)]
    environment = {"PYTHONPATH": ROOT}
    if victim == "worker":
        fuse.touch()
        environment |= {"DEATH_FUSE": str(fuse), "DEATH_OF_WORKER": str(draw.randrange(min(calm.worker_events)))}
    else:
        environment |= {"DEATH_OF_DAEMON": str(draw.randrange(calm.daemon_events))}
        environment |= {"DEATH_OF_ALL": "1"} if victim == "all" else {}
    drop(folder, "captions.txt", CAPTIONS)
    with daemon(folder, worker=WORKER, before=_ARM_DAEMON, **environment) as running:
        if victim == "worker":
            running.wait(lambda status: any(device.restarts for device in status.devices), "a death")
            running.wait_done()
            assert running.stop() == 0
        else:
            assert running.process.wait(LIMIT_S) == -9, "the point was not reached"
    _finish(folder)
    assert _check(folder) == calm.facts


def test_killed_again_and_again_it_ends_with_the_same_samples(tmp_path: Path, calm: Calm) -> None:
    draw, folder = random.Random(POINTS), tmp_path / "state"
    drop(folder, "captions.txt", CAPTIONS)
    for _ in range(2):
        point = draw.randrange(calm.daemon_events // 8)
        with daemon(folder, worker=WORKER, before=_ARM_DAEMON, PYTHONPATH=ROOT, DEATH_OF_DAEMON=str(point)) as running:
            assert running.process.wait(LIMIT_S) == -9, "the point was not reached"
    _finish(folder)
    assert _check(folder) == calm.facts
