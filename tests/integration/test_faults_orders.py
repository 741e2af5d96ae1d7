"""Orders that must hold whatever happens next: stop, pause, cancel, retry."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.daemon_process import LIMIT_S, RunningDaemon, daemon, drop
from tests.integration.faulty import HOLD_BATCH, answer, faulty, never, rows, until

CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow", "hen") for obj in ("bus", "tree", "hut")]
LOUD = "import logging\nlogging.basicConfig(level='INFO')\n"
HASTY = "from imgdiffd.daemon import serve as module\nmodule.WORKER_GRACE_S = 0.5\n"
FAILED = 10_000
REASONS = ("broke_generate", "broke_locate")


def submitted(running: RunningDaemon, captions: list[str], name: str) -> int:
    source = running.folder / name
    source.write_text("".join(f"{caption}\n" for caption in captions))
    return running.client.submit(source).id


def busy(running: RunningDaemon) -> None:
    running.wait(lambda status: any(device.running for device in status.devices), "a running batch")


def test_sigterm_starts_nothing_more_and_costs_no_attempt(tmp_path: Path) -> None:
    (tmp_path / HOLD_BATCH).touch()
    with faulty(tmp_path, before=LOUD, IMGDIFFD_DEVICES="cpu") as running:
        drop(tmp_path, "captions.txt", CAPTIONS)
        running.wait(lambda status: status.devices[0].running == len(CAPTIONS), "a running batch")
        running.process.send_signal(signal.SIGTERM)
        until(lambda: "SIGTERM: stopping" in running.log.read_text(), "the stop")
        (tmp_path / HOLD_BATCH).unlink()
        assert running.process.wait(LIMIT_S) == 0
    finished = "SELECT stage, attempt, crashes, state, count(*) FROM items GROUP BY 1, 2, 3, 4"
    assert rows(tmp_path, finished) == [("generate", 1, 0, "ready", len(CAPTIONS))]


def test_a_batch_beyond_the_stop_timeout_waits_for_a_restart(tmp_path: Path) -> None:
    with daemon(tmp_path, before=HASTY, IMGDIFFD_DRAIN_S="1") as running:
        drop(tmp_path, "captions.txt", ["a cat near a hang-worker@compare"])
        running.wait(lambda status: bool(status.jobs), "the job")

        def hung() -> bool:
            return rows(tmp_path, "SELECT stage FROM items") == [("compare",)] and bool(
                [device for device in running.client.status().devices if device.running]
            )

        until(hung, "a batch that hangs")
        assert running.stop() == 0
    assert rows(tmp_path, "SELECT state, attempt, crashes FROM items") == [("ready", 1, 0)]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_paused_stays_paused_through_a_restart(tmp_path: Path, end: signal.Signals) -> None:
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        running.client.set_paused(True)
        running.process.send_signal(end)
        running.process.wait()
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        submitted(running, CAPTIONS, "while_paused.txt")
        status = running.client.status()
        assert status.paused
        never(lambda: running.client.status().open_tasks > 0, "work in spite of the pause", 0.5)
        assert rows(tmp_path, "SELECT DISTINCT stage, state FROM items") == [("rewrite", "ready")]
        running.client.set_paused(False)
        assert [job.state for job in running.wait_done().jobs] == ["done"]


def test_cancelling_a_job_drops_its_queued_tasks_at_once(tmp_path: Path) -> None:
    (tmp_path / HOLD_BATCH).touch()
    with faulty(tmp_path, before=LOUD, IMGDIFFD_DEVICES="cpu") as running:
        running.wait(lambda status: status.ready, "readiness")
        job = submitted(running, [f"a cat beside bus {number}" for number in range(200)], "many.txt")
        busy(running)
        before = running.client.status()
        assert running.client.change(job, "cancel").state == "cancelled"
        after = running.client.status()
        assert before.scheduler is not None
        assert after.scheduler is not None
        assert before.scheduler.queued > 0
        assert (after.scheduler.queued, after.scheduler.running) == (0, before.scheduler.running)
        (tmp_path / HOLD_BATCH).unlink()


def test_a_cancelled_job_stops_and_its_neighbour_goes_on(tmp_path: Path) -> None:
    many = [f"a cat beside bus {number}" for number in range(2000)]
    with daemon(tmp_path, FAKE_WORKER_DELAY_S="0.02") as running:
        running.wait(lambda status: status.ready, "readiness")
        job = submitted(running, many, "many.txt")
        busy(running)
        neighbour = submitted(running, CAPTIONS, "neighbour.txt")
        assert running.client.change(job, "cancel").state == "cancelled"

        def stopped() -> bool:
            counted = dict(rows(tmp_path, f"SELECT state, count(*) FROM items WHERE job_id = {job} GROUP BY state"))
            held = rows(tmp_path, f"SELECT count(*) FROM items WHERE job_id = {neighbour} AND state = 'ready'")
            return "ready" not in counted and running.client.status().open_tasks <= held[0][0]

        until(stopped, "the end of the cancelled job's work")
        kept = rows(tmp_path, f"SELECT count(*) FROM rewrites JOIN items ON id = item_id WHERE job_id = {job}")
        running.wait(lambda status: status.jobs[0].state == "done", "the neighbour's end")
        view = running.client.job(neighbour)
        assert (view.failed, view.cancelled, view.sampled + view.rejected) == (0, 0, len(CAPTIONS))
        assert rows(tmp_path, f"SELECT count(*) FROM rewrites JOIN items ON id = item_id WHERE job_id = {job}") == kept
        assert [device.restarts for device in running.client.status().devices] == [0, 0]


def test_ten_thousand_failed_captions_are_retried_by_reason(tmp_path: Path) -> None:
    with daemon(tmp_path, IMGDIFFD_DEVICES="cpu") as running:
        running.wait(lambda status: status.ready, "readiness")
        running.client.set_paused(True)
        submitted(running, [f"a cat beside bus {number}" for number in range(FAILED + 1)], "many.txt")
        assert running.stop() == 0
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as connection:
        fail = "UPDATE items SET state = 'failed', crashes = 3, reason = ? WHERE id"
        connection.execute(f"{fail} > 1", REASONS[:1])
        connection.execute(f"{fail} = 1", REASONS[1:])
    with daemon(tmp_path, IMGDIFFD_DEVICES="cpu") as running:
        running.wait(lambda status: status.ready, "readiness")
        environment = {**os.environ, "IMGDIFFD_CONFIG": os.devnull, "IMGDIFFD_SOCKET_PATH": str(tmp_path / "s")}
        command = [sys.executable, "-P", "-m", "imgdiffd", "retry", "--failed", "--reason", REASONS[0]]
        told = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=LIMIT_S
        ).stdout
        assert told.startswith(f"{FAILED} captions ")
        assert answer(tmp_path, "/health").status_code == 200
    found = rows(tmp_path, "SELECT state, crashes, reason, count(*) FROM items GROUP BY 1, 2, 3 ORDER BY 1")
    assert found == [("failed", 3, REASONS[1], 1), ("ready", 0, "", FAILED)]
