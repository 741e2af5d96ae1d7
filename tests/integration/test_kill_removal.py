"""Killed with -9 at any point of object removal and started again, the daemon makes every removal sample once.

Points are counted as in `test_kill`; each seed draws one from those of an undisturbed run and replays alone with
`pytest -k seed137`. `KILL_POINTS=200 pytest ...` draws more.
"""

import os
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from imgdiffd.method.removal import RemovalSample
from imgdiffd.store import Reader
from tests.integration.daemon_process import LIMIT_S, RunningDaemon, daemon, drop
from tests.integration.test_kill import ROOT, VICTIMS, WORKER

POINTS = int(os.environ.get("KILL_POINTS", "3"))
CAPTIONS = [f"a {animal} in the {place}" for animal in ("cat", "dog", "horse") for place in ("park", "street", "field")]
ARMED = "from tests.integration.sudden_death import arm_daemon\narm_daemon()\n"
REMOVAL = {"PYTHONPATH": ROOT, "IMGDIFFD_REMOVAL": "true", "WATCHDOG_USEC": "400000"}  # asks ten times a second
NAMED = """
SELECT image1 FROM pairs UNION SELECT image2 FROM pairs UNION SELECT left_image FROM samples
UNION SELECT right_image FROM samples UNION SELECT erased FROM erasures
UNION SELECT with_image FROM erasures UNION SELECT without_image FROM erasures
"""


@dataclass(frozen=True)
class Calm:
    """A folder with captions done, what an undisturbed removal makes of it, and the events at which a kill may come."""

    before: Path
    samples: list[RemovalSample]
    daemon_events: int
    worker_events: tuple[int, ...]


def _until_removed(running: RunningDaemon) -> None:
    def over(job_removed: int, total: int) -> bool:
        return 0 < total == job_removed

    running.wait(
        lambda status: bool(status.jobs) and over(status.jobs[0].removal.sampled, status.jobs[0].removal.total),
        "every removal",
    )


def _check(folder: Path) -> list[RemovalSample]:
    """Each counted once, every image that a row names whole, and no other there; returns the samples."""
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        named = {name for (name,) in connection.execute(NAMED) if name}
        ((boxes,),) = connection.execute("SELECT sum(n) FROM verdicts WHERE stage = 'erase'").fetchall()
        ((objects,),) = connection.execute("SELECT sum(n) FROM verdicts WHERE stage = 'inspect'").fetchall()
        ((pairs, erased),) = connection.execute(
            "SELECT (SELECT count(*) FROM items WHERE pipeline = 'removal'), count(*) FROM erasures"
        )
    assert (boxes, objects, erased) == (5 * pairs, 3 * pairs, 3 * pairs)
    images = folder / "pictures"
    assert {str(path.relative_to(images)) for path in images.rglob("*") if path.is_file()} == named
    for name in named:
        with Image.open(images / name) as image:
            image.load()
    with Reader.open(folder / "state.db") as reader:
        return [row.sample for row in reader.removal_samples()]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    before = tmp_path_factory.mktemp("calm") / "state"
    drop(before, "captions.txt", CAPTIONS)
    with daemon(before) as running:
        (job,) = running.wait_done().jobs
        assert running.stop() == 0
    folder = before.with_name("removed")
    shutil.copytree(before, folder)
    tally = f"{folder}.tally"
    with daemon(folder, worker=WORKER, before=ARMED, **REMOVAL, DEATH_TALLY=tally) as running:
        _until_removed(running)
        assert running.stop() == 0
    samples = _check(folder)
    assert len(samples) == 2 * job.sampled > 0
    *workers, daemon_events = sorted(int(path.read_text()) for path in folder.parent.glob(f"{folder.name}.tally.*"))
    return Calm(before, samples, daemon_events, tuple(workers))


@pytest.mark.parametrize("seed", range(POINTS), ids=lambda seed: f"seed{seed}")
def test_killed_anywhere_in_removal_the_samples_are_the_same(tmp_path: Path, seed: int, calm: Calm) -> None:
    draw, folder, fuse = random.Random(seed), tmp_path / "state", tmp_path / "fuse"
    shutil.copytree(calm.before, folder)
    victim = VICTIMS[seed % len(VICTIMS)]
    if victim == "worker":
        fuse.touch()
        environment = {"DEATH_FUSE": str(fuse), "DEATH_OF_WORKER": str(draw.randrange(max(calm.worker_events) // 2))}
    else:
        environment = {"DEATH_OF_DAEMON": str(draw.randrange(calm.daemon_events))}
        environment |= {"DEATH_OF_ALL": "1"} if victim == "all" else {}
    with daemon(folder, worker=WORKER, before=ARMED, **REMOVAL, **environment) as running:
        if victim == "worker":
            running.wait(lambda status: any(device.restarts for device in status.devices), "a death")
        else:
            assert running.process.wait(LIMIT_S) == -9, "the point was not reached"
    for _ in range(2):  # the second start removes what a worker left that outlived its daemon
        with daemon(folder, **REMOVAL) as running:
            _until_removed(running)
            running.wait(lambda status: status.ready, "readiness")
            assert running.stop() == 0
    assert _check(folder) == calm.samples
