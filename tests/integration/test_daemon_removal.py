"""Object removal as a daemon's users meet it: behind every caption, in what time these leave, and nothing twice."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.cli.main import main
from imgdiffd.errors import DaemonError
from imgdiffd.export import release, removal
from imgdiffd.fleet.device import WORKER_COMMAND
from imgdiffd.method.profile import load_profile
from imgdiffd.mini.evaluate import demo_captions
from imgdiffd.status import JobView, RemovalView, Status
from imgdiffd.store import Reader
from tests.integration.daemon_process import daemon, drop

SOON = {"IMGDIFFD_REMOVAL": "true", "WATCHDOG_USEC": "800000"}  # the store is asked for work five times a second
ONE_BY_ONE = {**SOON, "IMGDIFFD_DEVICES": "cpu", "IMGDIFFD_IN_FLIGHT": "1"}
REAL = {"IMGDIFFD_PROFILE": "mini", "IMGDIFFD_THREADS_PER_DEVICE": "1"}
PLACES = ("bus", "tree", "chair", "boat", "clock", "bench", "lamp", "horse")
CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow") for obj in PLACES]
SAMPLES_A_PAIR = 2  # of the fake worker's three objects, one does not go


def removals_of(status: Status) -> RemovalView:
    (job,) = status.jobs
    return job.removal


def removed(more: Callable[[JobView], bool] = lambda job: True) -> Callable[[Status], bool]:
    """Every job has ended and nothing waits for removal."""
    return lambda status: (
        bool(status.jobs)
        and all(
            job.state == "done" and job.removal.total > 0 == job.removal.waiting and more(job) for job in status.jobs
        )
    )


def rows(folder: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        return connection.execute(query, values).fetchall()


def test_removals_follow_captions_and_yield_to_new_ones(tmp_path: Path) -> None:
    with daemon(tmp_path, **ONE_BY_ONE, FAKE_WORKER_DELAY_S="0.01") as running:
        drop(tmp_path, "captions.txt", CAPTIONS)
        (job,) = running.wait_done().jobs
        assert job.removal.total == job.sampled > job.removal.done
        running.wait(lambda status: removals_of(status).done > 0, "a first removal")
        late = tmp_path / "late.txt"
        late.write_text("a kite above a hill\na boat below a bridge\n")
        running.client.submit(late)
        (_, first) = running.wait_done(jobs=2).jobs
        assert first.removal.waiting, "the late captions did not wait for the removals"
        running.wait(lambda status: not any(job.removal.waiting for job in status.jobs), "the last removal")
        assert running.stop() == 0
    of_job, of_removal = (
        "FROM jobs WHERE jobs.id =",
        "FROM items WHERE origin IS NOT NULL AND job_id = 1 AND updated_at",
    )
    assert rows(tmp_path, f"SELECT count(*) {of_removal} <= (SELECT finished_at {of_job} 1)") == [(0,)]
    while_late = f"BETWEEN (SELECT created_at {of_job} 2) AND (SELECT finished_at {of_job} 2)"
    ((batches,),) = rows(tmp_path, f"SELECT count(DISTINCT updated_at) {of_removal} {while_late}")
    assert isinstance(batches, int)
    assert batches <= 2, "the batch under way, and one begun before the late captions were asked for"


def test_removals_begin_at_once_and_not_at_the_next_poll(tmp_path: Path) -> None:
    never = "import imgdiffd.daemon.serve as serve; serve.SCHEDULER_POLL_S = 3600.0"
    with daemon(tmp_path, before=never, IMGDIFFD_REMOVAL="true") as running:
        drop(tmp_path, "captions.txt", CAPTIONS)
        running.wait(removed(), "the last removal")


def test_killed_midway_every_removal_is_done_and_exported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drop(tmp_path, "captions.txt", CAPTIONS)
    with daemon(tmp_path, **SOON, FAKE_WORKER_DELAY_S="0.02") as running:
        running.wait(lambda status: bool(status.jobs) and removals_of(status).sampled > 0, "a first removal sample")
        running.kill()
    with daemon(tmp_path, **SOON) as running:
        status = running.wait(removed(), "every removal")
        (job,) = status.jobs
        assert (status.no_removal, status.problems) == ("", ())
        assert (job.removal.sampled, job.removal.failed) == (job.removal.total, 0)
        assert job.removal.samples == SAMPLES_A_PAIR * job.removal.total
        steps = {step.name: step for step in running.client.funnel().steps}
        assert steps["pairs for object removal"].count == steps["pairs alike enough"].count == job.removal.total
        assert steps["objects erased"].count == 3 * job.removal.total
        assert steps["removal samples"].lost == {"still_there": job.removal.total}
        item = int(str(rows(tmp_path, "SELECT max(id) FROM items WHERE pipeline = 'removal'")[0][0]))
        story = running.client.explain(item)["removal"]
        assert [obj["reason"] for obj in story["erasures"]] == ["", "", "still_there"]
        assert running.stop() == 0
    assert {device for (device,) in rows(tmp_path, "SELECT device FROM timings WHERE stage = 'erase'")} == {
        "cpu#0",
        "cpu#1",
    }
    named = {name for (name,) in rows(tmp_path, "SELECT erased FROM erasures UNION SELECT with_image FROM erasures")}
    on_disk = {str(path.relative_to(tmp_path / "pictures")) for path in (tmp_path / "pictures").rglob("*-e?*.png")}
    assert named - {""} <= on_disk
    assert len(on_disk) == (3 + 2 * SAMPLES_A_PAIR) * job.removal.total, "of each object one, of each sample two more"

    monkeypatch.setenv("IMGDIFFD_CONFIG", "/dev/null")
    monkeypatch.setenv("IMGDIFFD_STATE_FOLDER", str(tmp_path))
    both, one, other = tmp_path / "both", tmp_path / "removal", tmp_path / "replacement"
    main(["export", str(both)])
    main(["export", str(one), "--kind", "removal"])
    main(["export", str(other), "--kind", "replacement"])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith("checked: ")] == [
        f"{job.samples} samples and {job.removal.samples} removal samples in {both}",
        f"{job.removal.samples} removal samples in {one}",
        f"{job.samples} samples in {other}",
    ]
    records = json.loads((both / removal.JSON_NAME).read_text())
    assert len({record["path"] for record in records}) == len(records) == job.removal.samples
    assert all((both / f"{record['path']}_{side}.jpg").exists() for record in records for side in (0, 1))
    assert (both / removal.JSON_NAME).read_bytes() == (one / removal.JSON_NAME).read_bytes()
    assert not (one / release.JSON_NAME).exists()
    assert not (other / removal.JSON_NAME).exists()


def test_a_removal_that_kills_workers_is_quarantined_until_retry(tmp_path: Path) -> None:
    with daemon(tmp_path, **SOON) as running:
        drop(tmp_path, "captions.txt", [*CAPTIONS[:3], "a kill-worker@erase in the park"])
        (job,) = running.wait(removed(lambda job: job.removal.failed == 1), "the removals that can be done").jobs
        assert (job.sampled, job.failed, job.removal.sampled) == (4, 0, 3)
        story = running.client.explain(4)
        assert (story["state"], story["removal"]["state"]) == ("sampled", "failed")
        assert (story["removal"]["reason"], story["removal"]["crashes"]) == ("broke_erase", 3)
        assert running.client.retry(reason="broke_generate") == 0
        assert running.client.retry(job.id, "broke_erase") == 1
        running.wait(removed(lambda job: job.removal.failed == 1), "its second end")


def test_removals_of_a_done_job_can_be_paused_and_cancelled(tmp_path: Path) -> None:
    with daemon(tmp_path, **SOON, FAKE_WORKER_DELAY_S="0.03") as running:
        drop(tmp_path, "captions.txt", CAPTIONS)
        running.wait_done()
        running.client.set_paused(True)
        running.wait(lambda status: not any(device.running for device in status.devices), "the last batch")
        paused = removals_of(running.client.status())
        assert paused.waiting
        assert running.client.change(1, "cancel").state == "done"
        running.client.set_paused(False)
        after = removals_of(running.client.status())
        assert (after.waiting, after.cancelled, after.total) == (0, paused.waiting, paused.total)
        with pytest.raises(DaemonError, match="cannot be cancelled"):
            running.client.change(1, "cancel")


def test_removals_switched_off_wait_until_switched_on(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        drop(tmp_path, "captions.txt", CAPTIONS[:4])
        status = running.wait_done()
        assert (status.no_removal, removals_of(status).total) == ("removal = false", 0)
        assert not any("eraser" in device.roles for device in status.devices)
    with daemon(tmp_path, **SOON) as running:
        status = running.wait(removed(), "removals from the pairs of before")
        assert removals_of(status).total == status.jobs[0].sampled
        assert any("eraser" in device.roles for device in status.devices)


def test_without_an_eraser_samples_are_made_and_status_says_so(tmp_path: Path) -> None:
    mini = load_bundle("mini")
    text = mini.path.read_text("utf-8").partition("[eraser]")[0].replace('source = "', f'source = "{mini.path.parent}/')
    bundle = tmp_path / "plain.toml"
    bundle.write_text(text)
    with daemon(tmp_path / "d", **SOON, IMGDIFFD_BUNDLE=str(bundle)) as running:
        drop(tmp_path / "d", "captions.txt", CAPTIONS[:2])
        status = running.wait_done()
        assert (status.jobs[0].sampled, removals_of(status).total, status.problems) == (2, 0, ())
        assert status.no_removal == f"bundle {load_bundle(bundle).name} has no eraser"


@pytest.mark.long
def test_the_mini_bundle_erases_an_object_and_nothing_else(tmp_path: Path) -> None:
    with daemon(tmp_path, worker=WORKER_COMMAND, **ONE_BY_ONE, **REAL) as running:
        drop(tmp_path, "captions.txt", demo_captions()[:3])
        running.wait(lambda status: bool(status.jobs) and removals_of(status).samples > 0, "a removal sample")
        assert running.stop() == 0
    reach = load_profile("mini").removal.dilate_px + load_profile("mini").removal.feather_px
    with Reader.open(tmp_path / "state.db") as reader:
        sample = next(reader.removal_samples()).sample
    assert sample.caption
    with Image.open(tmp_path / "pictures" / sample.erasure.source) as source:
        before = np.asarray(source.convert("RGB"))
    with Image.open(tmp_path / "pictures" / sample.erasure.erased) as erased:
        after = np.asarray(erased.convert("RGB"))
    x1, y1, x2, y2 = sample.erasure.box
    changed = (before != after).any(axis=2)
    assert changed[y1:y2, x1:x2].any()
    changed[max(0, y1 - reach) : y2 + reach, max(0, x1 - reach) : x2 + reach] = False
    assert not changed.any()
