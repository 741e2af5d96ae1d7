"""What a worker can do to a running daemon: answer late, fault, hang, run out of memory, die."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from imgdiffd.fleet.member import PARK_AFTER_FAILURES, PARK_WINDOW_S
from tests.integration.daemon_process import RunningDaemon, drop
from tests.integration.faulty import HOLD_BATCH, HOLD_START, answer, faulty, rows, until, workers_started

CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow", "hen") for obj in ("bus", "tree", "hut")]
FLOOR_S = 1.0
LOW_FLOOR = f"""
from imgdiffd.schedulers.costs import Costs
Costs.__init__.__kwdefaults__["deadline_floor_s"] = {FLOOR_S}
"""
SHORT_PATIENCE = """
from imgdiffd.fleet.device import DeviceProcess
DeviceProcess.__init__.__kwdefaults__["pulse_timeout_s"] = 3.0
"""
EAGER_STARTS = """
from imgdiffd.fleet import member
member._BACKOFF_S = (0.0,)
"""


def ready(running: RunningDaemon) -> dict[str, int | None]:
    """Waits until every device is ready; their worker's process ids by name."""
    status = running.wait(lambda status: all(device.state == "ready" for device in status.devices), "ready devices")
    return {device.name: device.pid for device in status.devices}


def submitted(running: RunningDaemon, captions: list[str], name: str = "mine") -> int:
    source = running.folder / f"{name}.txt"
    source.write_text("".join(f"{caption}\n" for caption in captions))
    return running.client.submit(source).id


def test_a_late_answer_is_refused_by_its_token(tmp_path: Path) -> None:
    (tmp_path / HOLD_BATCH).touch()
    with faulty(tmp_path, IMGDIFFD_DEVICES="cpu") as running:
        ready(running)
        first = submitted(running, CAPTIONS)
        running.wait(lambda status: status.devices[0].running == len(CAPTIONS), "a running batch")
        running.client.change(first, "cancel")
        second = submitted(running, CAPTIONS, "again")
        assert second != first
        (tmp_path / HOLD_BATCH).unlink()
        running.wait_done(jobs=2)
        assert running.stop() == 0
    assert f"{len(CAPTIONS)} results came too late and were dropped" in (tmp_path / "daemon.log").read_text()
    items = rows(tmp_path, f"SELECT DISTINCT state, stage, attempt FROM items WHERE job_id = {first}")
    assert items == [("cancelled", "rewrite", 1)]
    kept = "SELECT count(*) FROM rewrites JOIN items ON items.id = rewrites.item_id WHERE job_id ="
    assert rows(tmp_path, f"{kept} {first}") == [(0,)]
    assert rows(tmp_path, f"{kept} {second}") == [(len(CAPTIONS),)]


@pytest.mark.parametrize("child", ["", "1"], ids=["alone", "with a child that holds its pipes"])
def test_a_device_fault_restarts_only_that_worker(tmp_path: Path, child: str) -> None:
    with faulty(tmp_path, FAULTY_HEALS="1", FAULTY_CHILD=child, FAKE_WORKER_DELAY_S="0.01") as running:
        before = ready(running)
        (tmp_path / HOLD_START).touch()
        drop(tmp_path, "captions.txt", [*CAPTIONS, "a fault-device@generate near a tree"])
        until((tmp_path / "suffered-fault-device").exists, "the fault")
        running.wait_done()
        states = {
            device.name: (device.state, device.pid, device.restarts) for device in running.client.status().devices
        }
        (faulted,) = (name for name, (state, _, _) in states.items() if state == "restarting")
        (other,) = set(states) - {faulted}
        assert states[other] == ("ready", before[other], 0)
        (tmp_path / HOLD_START).unlink()
        after = ready(running)
        assert after[faulted] != before[faulted]
        (job,) = running.client.jobs().jobs
        assert (job.failed, job.sampled + job.rejected) == (0, len(CAPTIONS) + 1)
        assert running.stop() == 0
    assert rows(tmp_path, "SELECT DISTINCT attempt, crashes FROM items") == [(1, 0)]


def test_an_item_that_kills_three_workers_alone_is_quarantined(
    tmp_path: Path,
) -> None:
    with faulty(tmp_path, IMGDIFFD_DEVICES="cpu") as running:
        ready(running)
        job = submitted(running, [*CAPTIONS, "a kill-worker@compare near a tree", "a hen near a tree"])
        running.wait_done()
        view = running.client.job(job)
        assert (view.failed, view.sampled + view.rejected) == (1, len(CAPTIONS) + 1)
        ((item,),) = rows(tmp_path, "SELECT id FROM items WHERE state = 'failed'")
        story = running.client.explain(item)
        assert (story["reason"], story["stage"], story["crashes"]) == ("broke_compare", "compare", 3)
        assert "SIGKILL" in story["detail"]
        submitted(running, ["a cow near a tree"], "next")
        assert running.wait_done(jobs=2).jobs[0].failed == 0
        assert running.stop() == 0
    assert rows(tmp_path, "SELECT DISTINCT crashes FROM items WHERE state <> 'failed'") == [(0,)]


def test_a_stage_past_its_deadline_ends_its_worker_and_readiness(
    tmp_path: Path,
) -> None:
    with faulty(tmp_path, before=LOW_FLOOR, IMGDIFFD_DEVICES="cpu", FAULTY_HEALS="1") as running:
        first = ready(running)["cpu"]
        submitted(running, CAPTIONS)  # learns what batches cost, so that the floor is what counts
        running.wait_done()
        (tmp_path / HOLD_START).touch()
        submitted(running, ["a hang-worker near a tree"], "hangs")
        until((tmp_path / "suffered-hang-worker").exists, "the hang")
        until(lambda: answer(tmp_path, "/ready").status_code == 503, "the fall of readiness")
        (device,) = running.client.status().devices
        assert "rewrite did not end within" in device.detail  # 1 s, or longer where a busy machine taught it so
        assert first is not None
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        (tmp_path / HOLD_START).unlink()
        assert running.wait_done(jobs=2).jobs[0].failed == 0
        running.wait(lambda status: status.ready, "readiness")


@pytest.mark.parametrize(("fits", "too_many"), [(3, [12, 6]), (1, [12, 6, 3])])
def test_out_of_memory_halves_the_batch_and_costs_no_attempt(tmp_path: Path, fits: int, too_many: list[int]) -> None:
    def refused() -> list[int]:
        log = (tmp_path / "daemon.log").read_text()
        return [int(size) for size in re.findall(r"no room for (\d+) items in rewrite$", log, re.MULTILINE)]

    with faulty(tmp_path, IMGDIFFD_DEVICES="cpu", IMGDIFFD_IN_FLIGHT="1", FAULTY_FITS=str(fits)) as running:
        ready(running)
        submitted(running, CAPTIONS)
        running.wait_done()
        halves = refused()
        assert halves == too_many
        submitted(running, [f"{caption} again" for caption in CAPTIONS], "again")
        jobs = running.wait_done(jobs=2).jobs
        assert refused() == halves
        assert [job.failed for job in jobs] == [0, 0]
        assert [device.restarts for device in running.client.status().devices] == [0]
        assert running.stop() == 0
    assert rows(tmp_path, "SELECT DISTINCT attempt, crashes FROM items") == [(1, 0)]


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_a_dead_worker_makes_readiness_503_while_health_stays(tmp_path: Path, devices: str) -> None:
    with faulty(tmp_path, IMGDIFFD_DEVICES=devices) as running:
        victim = next(iter(ready(running).values()))
        assert answer(tmp_path, "/ready").status_code == 200
        (tmp_path / HOLD_START).touch()
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        until(lambda: answer(tmp_path, "/ready").status_code == 503, "503")
        assert "SIGKILL" in answer(tmp_path, "/ready").json()["problems"][0]
        assert answer(tmp_path, "/health").status_code == 200
        (tmp_path / HOLD_START).unlink()
        running.wait(lambda status: status.ready, "readiness")


def test_a_device_that_fails_five_starts_is_parked(tmp_path: Path) -> None:
    with faulty(tmp_path, before=EAGER_STARTS, IMGDIFFD_DEVICES="cpu", FAULTY_START="1") as running:
        status = running.wait(lambda status: status.devices[0].state == "parked", "a parked device")
        assert "the start was told to fail" in status.devices[0].detail
        assert [problem for problem in status.problems if problem.startswith("cpu parked: device cpu did not start")]
        assert answer(tmp_path, "/ready").status_code == 503
        assert answer(tmp_path, "/health").status_code == 200
        assert running.stop() == 0
    assert len(workers_started(tmp_path)) == PARK_AFTER_FAILURES == 5


def test_rare_start_failures_do_not_park_a_device(tmp_path: Path) -> None:
    assert PARK_WINDOW_S == 300
    far_apart = f"{EAGER_STARTS}member.PARK_WINDOW_S = 0.0\n"
    with faulty(tmp_path, before=far_apart, IMGDIFFD_DEVICES="cpu", FAULTY_START="1") as running:
        until(lambda: len(workers_started(tmp_path)) > PARK_AFTER_FAILURES + 1, "another start")
        assert running.client.status().devices[0].state == "restarting"


@pytest.mark.parametrize(("who", "restarts"), [("daemon", 0), ("worker", 1)])
def test_a_stopped_process_goes_on_or_is_replaced(tmp_path: Path, who: str, restarts: int) -> None:
    with faulty(tmp_path, before=SHORT_PATIENCE, IMGDIFFD_DEVICES="cpu", FAKE_WORKER_DELAY_S="0.05") as running:
        worker = ready(running)["cpu"]
        assert worker is not None
        submitted(running, CAPTIONS)
        running.wait(lambda status: status.devices[0].running > 0, "a running batch")
        stopped = running.process.pid if who == "daemon" else worker
        os.kill(stopped, signal.SIGSTOP)
        if who == "daemon":
            time.sleep(5)  # longer than it waits for a worker's sign of life
            os.kill(stopped, signal.SIGCONT)
        status = running.wait_done()
        assert (status.jobs[0].failed, status.devices[0].restarts) == (0, restarts)
        assert status.problems == ()
