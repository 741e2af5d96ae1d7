"""After a power cut everything acknowledged is there: QEMU is killed amid the work, and its disk looked at.

`make test-powercut` builds the machine and runs this. What was acknowledged is what the guest said on its console
before the cut; the same disk goes through every cut, so that each start also recovers what the one before left.
"""

import os
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imgdiffd.job import TERMINAL_ITEM_STATES
from imgdiffd.pipeline import DEPTH, Stage
from tests.powercut.images import content_of
from tests.powercut.machine import FOLDER, files_on, make_disk, powered

pytestmark = pytest.mark.skipif(not FOLDER, reason="`make test-powercut` builds the machine and runs this")
CUTS = int(os.environ.get("POWER_CUTS", "20"))
SEED = int(os.environ.get("POWER_SEED", "1"))
MOST_LINES = 60  # acknowledged in one life


@dataclass
class Promised:
    """What the guest was told is kept."""

    jobs: dict[int, int] = field(default_factory=dict)  # captions by job
    stages: dict[int, Stage] = field(default_factory=dict)  # the furthest recorded of each item

    def note(self, line: str) -> None:
        """A line of the console that promises something."""
        kind, *words = line.split()
        if kind == "J":
            self.jobs[int(words[0])] = int(words[1])
        else:
            self.stages.update(dict.fromkeys(map(int, words[1:]), Stage(words[0])))


def _live(disk: Path, lines: int, promised: Promised) -> None:
    """Power on, and cut it after so many acknowledgements."""
    said: list[str] = []
    with powered(Path(FOLDER), disk) as console:
        for line in console:
            said.append(line)
            assert not line.startswith("E "), "\n".join([*said, *console])
            if line.startswith(("J ", "R ")):
                promised.note(line)
                lines -= 1
            if not lines:
                return
    raise AssertionError("\n".join(["the guest fell silent:", *said]))


def _images_named(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute(
        "SELECT image1 FROM pairs UNION SELECT image2 FROM pairs"
        " UNION SELECT left_image FROM samples UNION SELECT right_image FROM samples"
    )
    return {name for (name,) in rows if name}


def _lost(connection: sqlite3.Connection, promised: Promised) -> list[str]:
    """Everything promised that is not there."""
    totals = dict(connection.execute("SELECT id, total FROM jobs WHERE state <> 'reading'").fetchall())
    lost = [f"job {job}" for job, total in promised.jobs.items() if totals.get(job) != total]
    items = {
        item: (Stage(stage), state) for item, stage, state in connection.execute("SELECT id, stage, state FROM items")
    }
    for item, stage in promised.stages.items():
        found = items.get(item)
        ended = found is not None and found[1] in TERMINAL_ITEM_STATES
        if found is None or DEPTH[found[0]] + ended <= DEPTH[stage]:
            lost.append(f"{stage} of item {item}: {found}")
    return lost


def test_a_power_cut_loses_nothing_and_leaves_no_partial_image(tmp_path: Path) -> None:
    draw, disk, promised = random.Random(SEED), tmp_path / "disk.img", Promised()
    make_disk(disk)
    for cut in range(CUTS):
        _live(disk, draw.randint(1, MOST_LINES), promised)
        after = tmp_path / f"after-{cut}"
        files_on(disk, after)
        with closing(sqlite3.connect(after / "state.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok", cut
            assert not connection.execute("PRAGMA foreign_key_check").fetchall(), cut
            assert _lost(connection, promised) == [], cut
            named = _images_named(connection)
        for name in named:
            assert (after / "pictures" / name).read_bytes() == content_of(name), (cut, name)
    assert len(promised.stages) > CUTS
