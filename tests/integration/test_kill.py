"""Killed with -9 at any moment and started again, the daemon finishes with nothing lost and nothing doubled."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from imgdiffd.job import TERMINAL_ITEM_STATES
from imgdiffd.picture_files import TEMPORARY_PREFIX
from imgdiffd.store import Reader, SampleRow
from tests.integration.daemon_process import daemon, drop

ANIMALS = ("cat", "dog", "horse", "cow", "sheep", "bear", "zebra", "giraffe")
PLACES = ("park", "kitchen", "street", "field", "river", "garden", "station", "market")
CAPTIONS = [f"a {animal} in the {place}" for animal in ANIMALS for place in PLACES]
DELAY_S = "0.004"


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


def _check(folder: Path) -> list[tuple[object, ...]]:
    """Every caption ended once, every picture named is whole, and none is left over; returns the samples' facts."""
    with Reader.open(folder / "state.db") as reader:
        samples = list(reader.samples())
        (job,) = reader.jobs()
    assert job.total == len(CAPTIONS)
    assert sum(job.states.get(state, 0) for state in TERMINAL_ITEM_STATES) == len(CAPTIONS)
    assert len({(sample.item, sample.region) for sample in samples}) == len(samples)
    pictures = folder / "pictures"
    for sample in samples:
        for name in (sample.image1, sample.image2, sample.left_image, sample.right_image):
            with Image.open(pictures / name) as picture:
                picture.load()
    assert not _unfinished(folder)
    assert not list((folder / "inbox").glob("*.txt"))
    return sorted(_facts(sample) for sample in samples)


def _start_once_more(folder: Path) -> None:
    """What the killed left in the picture folder goes after the next start, beside the work."""
    with daemon(folder) as running:
        running.wait(lambda status: not _unfinished(folder), "a tidy picture folder")
        assert running.stop() == 0


def _unfinished(folder: Path) -> list[Path]:
    return [path for path in (folder / "pictures").rglob(f"{TEMPORARY_PREFIX}*") if path.is_file()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    folder = tmp_path_factory.mktemp("calm")
    drop(folder, "captions.txt", CAPTIONS)
    with daemon(folder) as running:
        running.wait_done()
        assert running.stop() == 0
    facts = _check(folder)
    assert len(facts) > len(CAPTIONS) // 2
    return facts


@pytest.mark.parametrize("seed", [1, 2])
def test_a_daemon_killed_at_random_moments_ends_with_the_same_samples(
    tmp_path: Path, seed: int, undisturbed: list[tuple[object, ...]]
) -> None:
    draw = random.Random(seed)
    drop(tmp_path, "captions.txt", CAPTIONS)
    for _ in range(5):
        with daemon(tmp_path, FAKE_WORKER_DELAY_S=DELAY_S) as running:
            if draw.random() < 0.7:
                running.wait(lambda status: any(device.state == "ready" for device in status.devices), "a device")
            time.sleep(draw.uniform(0, 0.8))  # the moment of death is the point, not a synchronisation
            running.kill()
    with daemon(tmp_path) as running:
        running.wait_done()
        assert running.stop() == 0
    _start_once_more(tmp_path)
    assert _check(tmp_path) == undisturbed


def test_workers_killed_at_random_moments_lose_and_double_nothing(
    tmp_path: Path, undisturbed: list[tuple[object, ...]]
) -> None:
    draw = random.Random(3)
    drop(tmp_path, "captions.txt", CAPTIONS)
    with daemon(tmp_path, FAKE_WORKER_DELAY_S=DELAY_S) as running:
        for _ in range(6):
            status = running.wait(lambda status: any(device.pid for device in status.devices), "a worker")
            victim = draw.choice([device.pid for device in status.devices if device.pid])
            time.sleep(draw.uniform(0, 0.3))  # as above
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        running.wait_done()
        assert running.stop() == 0
    _start_once_more(tmp_path)
    assert _check(tmp_path) == undisturbed
