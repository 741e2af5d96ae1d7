"""When the demo is over, and when it never will be."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from imgdiffd.cli.demo import _over, next_commands, run_demo, write_settings
from imgdiffd.errors import DaemonError, ExportError
from imgdiffd.settings import load_settings
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


def test_the_demo_leaves_settings_for_what_comes_after_it(tmp_path: Path) -> None:
    for removal in (False, True):  # the second run finds the first one's
        settings = load_settings(write_settings(tmp_path, removal=removal), {})
        assert (settings.state_folder, settings.inbox_folder) == (tmp_path, tmp_path / "inbox")
        assert settings.removal == removal
        assert (settings.bundle, settings.devices) == ("mini", ("cpu", "cpu"))


def test_a_long_folder_has_its_socket_elsewhere_and_in_the_file(tmp_path: Path) -> None:
    folder = tmp_path / ("long-" * 20)
    folder.mkdir()
    paths = {load_settings(write_settings(folder, removal=False), {}).socket_path for _ in range(2)}
    assert len(paths) == 1
    assert folder not in paths.pop().parents


def test_settings_that_are_not_the_demos_stay(tmp_path: Path) -> None:
    (tmp_path / "imgdiffd.toml").write_text("poll_s = 3\n")
    with pytest.raises(DaemonError, match=r"imgdiffd\.toml is not a demo's"):
        write_settings(tmp_path, removal=False)
    assert (tmp_path / "imgdiffd.toml").read_text() == "poll_s = 3\n"


@pytest.mark.parametrize(
    ("called", "program"),
    [
        ("/there/.venv/bin/imgdiffd", ".venv/bin/imgdiffd"),
        ("/usr/bin/imgdiffd", "imgdiffd"),
        ("/opt/own one/imgdiffd", "'/opt/own one/imgdiffd'"),
        ("/opt/lib/imgdiffd/__main__.py", "bin/python -m imgdiffd"),
    ],
)
def test_commands_are_named_as_one_types_them_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, called: str, program: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [called.replace("/there", str(tmp_path))])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "my demo").mkdir()
    commands = next_commands(tmp_path / "my demo" / "imgdiffd.toml", 7)
    assert commands == (
        f"{program} explain 7 --config 'my demo/imgdiffd.toml'",
        f"{program} export 'my demo/export' --config 'my demo/imgdiffd.toml'",
        f"{program} serve --config 'my demo/imgdiffd.toml'",
    )


def test_a_dataset_folder_of_other_files_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_given: None)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "notes.txt").touch()
    with pytest.raises(ExportError, match=r"holds notes\.txt"):
        run_demo(tmp_path, None, Console(quiet=True))
    assert not (tmp_path / "daemon.log").exists()
