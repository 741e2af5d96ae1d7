"""The daemon as its users meet it: files in, samples out, orders over the socket, an ordered stop."""

import json
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from imgdiffd.errors import DaemonError
from imgdiffd.export.dataset import export_dataset
from imgdiffd.pipeline import Stage
from imgdiffd.store import Reader
from tests.integration.daemon_process import LIMIT_S, daemon, drop

CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow") for obj in ("bus", "tree", "chair")]


def test_a_dropped_file_becomes_samples_and_a_dataset(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        drop(tmp_path, "captions.txt", CAPTIONS)
        status = running.wait_done()
        assert status.ready
        (job,) = status.jobs
        assert (job.state, job.captions, job.failed) == ("done", len(CAPTIONS), 0)
        steps = {step.name: step.count for step in running.client.funnel().steps}
        assert steps["captions"] == len(CAPTIONS)
        assert steps["samples"] == job.samples > 0
        assert (tmp_path / "inbox" / "done" / "captions.txt").exists()
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
        assert running.stop() == 0
    assert not (tmp_path / "s").exists()
    with Reader.open(tmp_path / "state.db") as reader:
        assert export_dataset(reader, tmp_path / "pictures", tmp_path / "out").samples == {"replacement": job.samples}
    records = json.loads((tmp_path / "out" / "img_diff_object_replacement.json").read_text())
    for entry in records:
        assert (tmp_path / "out" / f"{entry['path']}_0.jpg").exists()
        assert (tmp_path / "out" / f"{entry['path']}_1.jpg").exists()


def test_an_item_that_kills_its_worker_is_quarantined_alone(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        drop(tmp_path, "captions.txt", [*CAPTIONS, "a kill-worker in the park"])
        (job,) = running.wait_done().jobs
        assert job.failed == 1
        assert job.sampled + job.rejected == len(CAPTIONS)
        assert sum(device.restarts for device in running.client.status().devices) >= 3


def test_sigterm_lets_running_batches_finish(tmp_path: Path) -> None:
    drop(tmp_path, "captions.txt", CAPTIONS)
    with daemon(tmp_path, FAKE_WORKER_DELAY_S="0.05") as running:
        running.wait(lambda status: any(device.running for device in status.devices), "a running batch")
        assert running.stop() == 0
    with daemon(tmp_path) as running:
        (job,) = running.wait_done().jobs
        assert job.sampled + job.rejected == len(CAPTIONS)


def test_learnt_costs_outlive_a_restart(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        drop(tmp_path, "captions.txt", CAPTIONS[:3])
        before = running.wait_done().scheduler
        assert before is not None
        assert {cost.stage for device in before.devices for cost in device.learnt} >= {Stage.REWRITE, Stage.GENERATE}
        assert running.stop() == 0
    with daemon(tmp_path) as running:
        after = running.wait(lambda status: all(d.state == "ready" for d in status.devices), "all devices").scheduler
        assert after is not None
        learnt = [cost for device in after.devices for cost in device.learnt]
        assert {cost.stage for cost in learnt} >= {Stage.REWRITE, Stage.GENERATE}
        assert {cost.batches for cost in learnt} == {0}


def test_ctrl_c_twice_does_not_wait_for_a_hung_batch(tmp_path: Path) -> None:
    with daemon(tmp_path, IMGDIFFD_DRAIN_S="600") as running:
        drop(tmp_path, "captions.txt", ["a hang-worker in the park"])
        running.wait(lambda status: any(device.running for device in status.devices), "a running batch")
        running.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(1.0)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(LIMIT_S) == 0


def test_submit_pause_resume_and_cancel_over_the_socket(tmp_path: Path) -> None:
    source = tmp_path / "mine.txt"
    source.write_text("".join(f"{caption}\n" for caption in CAPTIONS))
    with daemon(tmp_path / "d", FAKE_WORKER_DELAY_S="0.2") as running:
        running.wait(lambda status: status.ready, "readiness")
        job = running.client.submit(source)
        assert job.captions == len(CAPTIONS)
        assert running.client.change(job.id, "pause").state == "paused"
        assert running.client.change(job.id, "resume").state == "active"
        assert running.client.change(job.id, "cancel").state == "cancelled"
        with pytest.raises(DaemonError, match="cancelled"):
            running.client.change(job.id, "resume")
        again = running.client.submit(source, profile="paper")
        running.wait(lambda status: status.jobs[0].id == again.id and status.jobs[0].state == "done", "the second job")
        assert source.exists()


def test_the_same_content_twice_is_one_set_of_work(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        drop(tmp_path, "first.txt", CAPTIONS)
        running.wait_done()
        drop(tmp_path, "second.txt", CAPTIONS)
        status = running.wait_done(jobs=2)
        second, first = status.jobs
        assert second.duplicate_of == first.id
        assert second.captions == 0
        assert not list((tmp_path / "inbox").glob("*.txt"))


def test_a_second_daemon_on_the_same_state_is_refused(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        with daemon(tmp_path, IMGDIFFD_SOCKET_PATH=str(tmp_path / "t")) as second:
            assert second.process.wait(LIMIT_S) != 0
        assert running.client.status().ready
