"""When the demo is over, and when it never will be."""

from pathlib import Path

import pytest

from imgdiffd.cli.demo import _over
from imgdiffd.errors import DaemonError
from imgdiffd.status import DeviceView, JobView, RemovalView, Status


def _status(job_state: str | None, device_state: str = "ready") -> Status:
    job = JobView(
        id=1, name="a.txt", state=job_state or "", profile="mini", created_at=0.0, finished_at=None, captions=1,
        duplicates=0, problems=0, sampled=0, rejected=0, failed=0, cancelled=0, samples=0, error=None,
        duplicate_of=None,
    )  # fmt: skip
    device = DeviceView(
        name="cpu", state=device_state, detail="no models", pid=None, restarts=0, running=0, queued=0, busy_s=0.0
    )
    return Status(
        version="1", pid=1, uptime_s=0.0, ready=True, paused=False, problems=(), bundle="mini", inbox="", open_tasks=0,
        steals=0, devices=(device,), jobs=(job,) if job_state else (),
    )  # fmt: skip


def test_the_demo_waits_for_its_own_job_and_no_other(tmp_path: Path) -> None:
    assert not _over(_status(None), "a.txt", tmp_path)
    assert not _over(_status("active"), "a.txt", tmp_path)
    assert _over(_status("done"), "a.txt", tmp_path)
    assert not _over(_status("done"), "b.txt", tmp_path)


def test_the_demo_waits_only_for_removals_that_will_come(tmp_path: Path) -> None:
    status = _status("done")
    (job,) = status.jobs
    waiting = status.model_copy(update={"jobs": (job.model_copy(update={"removal": RemovalView(waiting=1)}),)})
    assert not _over(waiting, "a.txt", tmp_path)
    assert _over(waiting.model_copy(update={"no_removal": "removal = false"}), "a.txt", tmp_path)


def test_a_refused_file_ends_the_demo_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "a.txt.reason.txt").write_text("not UTF-8\nadvice: save it as UTF-8\n")
    with pytest.raises(DaemonError, match=r"refused a\.txt: not UTF-8 advice: save it"):
        _over(_status(None), "a.txt", tmp_path)


def test_devices_that_cannot_start_end_the_demo(tmp_path: Path) -> None:
    with pytest.raises(DaemonError, match="no device can start: no models"):
        _over(_status("active", "parked"), "a.txt", tmp_path)
