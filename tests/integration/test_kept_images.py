"""What lies in the image folder with `keep_pictures = "samples"`: what samples and open work name, also after -9.

Points of death are counted, not timed: the n-th deletion, or the n-th event as in `test_kill`; each seed replays alone
with `pytest -k seed137`. `KILL_POINTS=200 pytest ...` draws more.
"""

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from imgdiffd.cli.main import main
from imgdiffd.export import removal
from imgdiffd.store import Reader
from tests.integration.daemon_process import LIMIT_S, RunningDaemon, daemon, drop
from tests.integration.test_kill import ROOT, WORKER

POINTS = int(os.environ.get("KILL_POINTS", "1"))
SOON = "from imgdiffd.daemon import cleanup\ncleanup.GATHER_S = 0.05\n"
_DIE = """
import itertools, os, signal, sys
def _arm(numbers):
    def note(event, arguments):
        if event == "os.remove" and str(arguments[0]).endswith(".png") and next(numbers) == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(note)
_arm(itertools.count())
"""
_ARM = "from tests.integration.sudden_death import arm_daemon\narm_daemon()\n"
SAMPLES = {"IMGDIFFD_KEEP_PICTURES": "samples", "PYTHONPATH": ROOT}
BOTH = {**SAMPLES, "IMGDIFFD_REMOVAL": "true", "WATCHDOG_USEC": "400000"}
CAPTIONS = [f"a {animal} in the {place}" for animal in ("cat", "dog", "horse") for place in ("park", "field", "street")]
REJECTED = [f"an empty {place}" for place in ("attic", "lane", "barn", "yard", "shed", "cave", "port", "mill", "camp")]


def present(folder: Path) -> set[str]:
    images = folder / "pictures"
    return {str(path.relative_to(images)) for path in images.rglob("*") if path.is_file()}


def of_samples(folder: Path) -> set[str]:
    """Every image that a sample of either product names."""
    with Reader.open(folder / "state.db") as reader:
        names = {
            name for each in reader.samples() for name in (each.image1, each.image2, each.left_image, each.right_image)
        }
        for sample in (row.sample for row in reader.removal_samples()):
            names |= {sample.original, sample.erased, sample.erasure.source, sample.erasure.erased}
    return names


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        return connection.execute(query).fetchall()


def painted(folder: Path, where: str) -> set[str]:
    """The pairs of those items."""
    found = rows(folder, f"SELECT image1, image2 FROM pairs JOIN items ON items.id = item_id WHERE {where}")
    return {str(name) for pair in found for name in pair if name}


def wait_removed(running: RunningDaemon, failed: int = 0) -> None:
    running.wait(
        lambda status: (
            bool(status.jobs)
            and all(job.state == "done" and job.removal.total > 0 == job.removal.waiting for job in status.jobs)
            and sum(job.removal.failed for job in status.jobs) == failed
        ),
        "every removal",
    )


def wait_clean(running: RunningDaemon, wanted: set[str]) -> None:
    running.wait(lambda status: present(running.folder) == wanted, "a tidy image folder")


def export(folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(folder))
    main(["export", str(target)])


def test_after_a_job_only_images_that_samples_name_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(tmp_path, "captions.txt", CAPTIONS + REJECTED)
    with daemon(tmp_path, before=SOON, **SAMPLES) as running:
        (job,) = running.wait_done().jobs
        assert job.rejected
        wanted = of_samples(tmp_path)
        wait_clean(running, wanted)
        ((refused,), *_) = rows(tmp_path, "SELECT id FROM items WHERE state = 'rejected' AND stage = 'compare'")
        told = running.client.explain(int(str(refused)))
        pair = told["pair"]
        assert pair["scores"]
        assert told["pictures_gone"] == dict.fromkeys(
            (pair["image1"], pair["image2"]), 'not kept: keep_pictures is "samples"'
        )
        ((sampled,), *_) = rows(tmp_path, "SELECT id FROM items WHERE state = 'sampled'")
        assert running.client.explain(int(str(sampled)))["pictures_gone"] == {}
        assert running.stop() == 0
    export(tmp_path, tmp_path / "out", monkeypatch)
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 2 * job.samples
    assert present(tmp_path) == wanted


def test_with_removal_a_pair_is_kept_while_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = ["a kill-worker@inspect in the park", "a raise-error@compare in the field"]
    drop(tmp_path, "captions.txt", [*CAPTIONS, *REJECTED, *stuck])
    failed = "items.state = 'failed'"
    waiting = "SELECT erased FROM erasures JOIN items ON items.id = item_id WHERE items.state = 'failed'"
    with daemon(tmp_path, before=SOON, **BOTH) as running:
        wait_removed(running, failed=1)
        objects = {str(name) for (name,) in rows(tmp_path, waiting)}
        wanted = of_samples(tmp_path) | painted(tmp_path, failed) | objects
        assert (len(painted(tmp_path, failed)), len(objects)) == (2, 3)
        wait_clean(running, wanted)
        vain = rows(tmp_path, "SELECT erased, item_id FROM erasures WHERE reason = 'still_there'")
        assert vain
        erased, item = vain[0]
        assert running.client.explain(int(str(item)))["pictures_gone"] == {
            erased: 'not kept: keep_pictures is "samples"'
        }
        assert running.stop() == 0
    (tmp_path / "pictures" / "000000" / "1-9-1.png").touch()  # gone once the start has looked through the folder
    with daemon(tmp_path, before=SOON, **BOTH) as running:
        wait_clean(running, wanted)
        assert running.client.retry() == 2
        wait_removed(running, failed=1)
        ((why,),) = rows(tmp_path, "SELECT detail FROM items WHERE state = 'failed' AND origin IS NULL")
        assert "asked for an error" in str(why), "its images were there to try it again"
        wait_clean(running, wanted)
        assert running.stop() == 0
    export(tmp_path, tmp_path / "out", monkeypatch)
    assert (tmp_path / "out" / removal.JSON_NAME).exists()


def test_changing_the_keep_setting_deletes_or_keeps_from_then_on(tmp_path: Path) -> None:
    drop(tmp_path, "captions.txt", CAPTIONS + REJECTED)
    with daemon(tmp_path, before=SOON) as running:
        running.wait_done()
        assert running.stop() == 0
    wanted, every = of_samples(tmp_path), painted(tmp_path, "1") | of_samples(tmp_path)
    assert present(tmp_path) == every > wanted
    with daemon(tmp_path, before=SOON, **SAMPLES) as running:
        wait_clean(running, wanted)
        assert running.stop() == 0
    drop(tmp_path, "more.txt", [f"{caption} at night" for caption in CAPTIONS + REJECTED])
    with daemon(tmp_path, before=SOON) as running:
        running.wait_done(jobs=2)
        assert running.client.explain(gone_item(tmp_path))["pictures_gone"].popitem()[1] == (
            'not kept: keep_pictures was "samples"'
        )
        assert running.stop() == 0
    kept = painted(tmp_path, "items.job_id = 2") | of_samples(tmp_path)
    assert present(tmp_path) == kept > of_samples(tmp_path)
    with daemon(tmp_path, before=SOON, **BOTH) as running:  # takes up the pairs that still are there, and no others
        wait_removed(running)
        wait_clean(running, of_samples(tmp_path))
        assert running.stop() == 0


def gone_item(folder: Path) -> int:
    ((item,), *_) = rows(folder, "SELECT id FROM items WHERE state = 'rejected' AND stage = 'compare' AND job_id = 1")
    return int(str(item))


def test_images_of_a_cancelled_job_go_too(tmp_path: Path) -> None:
    drop(tmp_path, "captions.txt", CAPTIONS + REJECTED)
    with daemon(tmp_path, before=SOON, **SAMPLES, FAKE_WORKER_DELAY_S="0.02") as running:
        running.wait(lambda status: bool(painted_so_far(tmp_path)), "a first pair")
        running.client.change(1, "cancel")
        running.wait(lambda status: not any(device.running for device in status.devices), "the last batch")
        wait_clean(running, of_samples(tmp_path))
        assert running.stop() == 0


def painted_so_far(folder: Path) -> set[str]:
    return painted(folder, "1") if (folder / "state.db").exists() else set()


def finish(folder: Path) -> set[str]:
    """Whole samples of both products; nothing else lies there."""
    with daemon(folder, before=SOON, **BOTH) as running:
        wait_removed(running)
        wanted = of_samples(folder)
        running.wait(lambda status: wanted == {name for name in present(folder) if "/.tmp-" not in name}, "tidiness")
        assert running.stop() == 0
    for name in wanted:
        with Image.open(folder / "pictures" / name) as image:
            image.load()
    return wanted


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], int]:
    """What an undisturbed run keeps, and how many events a kill may come at."""
    folder = tmp_path_factory.mktemp("calm") / "state"
    drop(folder, "captions.txt", CAPTIONS + REJECTED)
    with daemon(folder, worker=WORKER, before=_ARM + SOON, **BOTH, DEATH_TALLY=f"{folder}.tally") as running:
        wait_removed(running)
        wanted = of_samples(folder)
        wait_clean(running, wanted)
        assert running.stop() == 0
    return wanted, max(int(path.read_text()) for path in folder.parent.glob("state.tally.*"))


@pytest.mark.parametrize("at", [0, 7])
def test_killed_at_a_deletion_the_next_start_deletes_the_rest(
    tmp_path: Path, at: int, calm: tuple[set[str], int]
) -> None:
    drop(tmp_path / "state", "captions.txt", CAPTIONS + REJECTED)
    with daemon(tmp_path / "state", before=_DIE.replace("{at}", str(at)) + SOON, **BOTH) as running:
        assert running.process.wait(LIMIT_S) == -9, "the point was not reached"
    assert finish(tmp_path / "state") == calm[0]


@pytest.mark.parametrize("seed", range(POINTS), ids=lambda seed: f"seed{seed}")
def test_killed_at_a_drawn_point_it_ends_with_the_same_images(
    tmp_path: Path, seed: int, calm: tuple[set[str], int]
) -> None:
    at = random.Random(seed).randrange(calm[1])
    drop(tmp_path / "state", "captions.txt", CAPTIONS + REJECTED)
    with daemon(tmp_path / "state", before=_ARM + SOON, **BOTH, DEATH_OF_DAEMON=str(at)) as running:
        assert running.process.wait(LIMIT_S) == -9, "the point was not reached"
    assert finish(tmp_path / "state") == calm[0]
