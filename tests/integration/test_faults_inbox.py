"""What can happen to the watch folder under a running daemon: slow writers, copies, and the folder itself gone."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.daemon_process import RunningDaemon, daemon, drop
from tests.integration.faulty import answer, until

CAPTIONS = ["a cat beside a bus", "a dog beside a tree"]
DEFAULTS = {"IMGDIFFD_SETTLE_S": "2", "IMGDIFFD_POLL_S": "1"}
SETTLE_S = 2.0
# Root reads a folder whatever its mode; without its capabilities it is a user like others.
LIKE_OTHERS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capset(header, none) == 0, ctypes.get_errno()
"""


def degraded(running: RunningDaemon) -> None:
    """Waits until the folder is said to be out of reach."""

    def said() -> bool:
        body = answer(running.folder, "/ready")
        return body.status_code == 503 and any("inbox: " in problem for problem in body.json()["problems"])

    until(said, "a degraded inbox")


def takes(running: RunningDaemon, name: str, jobs: int) -> None:
    """A file dropped now becomes a job, and the daemon is ready again."""
    drop(running.folder, name, [f"{caption} of {name}" for caption in CAPTIONS])
    running.wait_done(jobs=jobs)
    assert (running.folder / "inbox" / "done" / name).exists()
    running.wait(lambda status: status.ready, "readiness")


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Another file system lies over `folder`."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "imgdiffd-test", str(folder)]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"a file system of its own needs root: {tried.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_growing_file_is_taken_whole_once_it_has_settled(tmp_path: Path) -> None:
    with daemon(tmp_path, **DEFAULTS) as running:
        running.wait(lambda status: status.ready, "readiness")
        path = tmp_path / "inbox" / "captions.txt"
        parts = 10  # together they take longer than a file that rests is left alone
        for part in range(parts):
            with path.open("a") as file:
                file.write(f"a cat near tree {part}\n")
            last = path.stat().st_mtime
            time.sleep(SETTLE_S / 8)
        (job,) = running.wait_done().jobs
        assert job.created_at - last >= SETTLE_S
        assert running.client.job(job.id).captions == parts


def test_a_file_renamed_into_place_is_a_job_before_any_scan(tmp_path: Path) -> None:
    with daemon(tmp_path, IMGDIFFD_SETTLE_S="3600", IMGDIFFD_POLL_S="3600") as running:
        running.wait(lambda status: status.ready, "readiness")
        until((tmp_path / "inbox" / "failed").is_dir, "the first scan")
        for number in range(3):
            drop(tmp_path, f"{number}.txt", [f"a cat beside bus {number}"])
            running.wait_done(jobs=number + 1)


def test_copies_dropped_at_once_are_one_set_of_work(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        running.wait(lambda status: status.ready, "readiness")
        names = [f"{letter}.txt" for letter in "abcd"]
        for name in names:
            drop(tmp_path, name, CAPTIONS)
        jobs = running.wait_done(jobs=len(names)).jobs
        (original,) = [job for job in jobs if job.duplicate_of is None]
        assert [job.duplicate_of for job in jobs if job is not original] == [original.id] * 3
        assert sum(job.captions for job in jobs) == original.captions == len(CAPTIONS)
        until(lambda: sorted(os.listdir(tmp_path / "inbox" / "done")) == names, "the files in done")
        assert sorted(os.listdir(tmp_path / "inbox")) == ["done", "failed"]


def test_a_deleted_watch_folder_is_reported_until_it_is_back(
    tmp_path: Path,
) -> None:
    with daemon(tmp_path, **DEFAULTS) as running:
        running.wait(lambda status: status.ready, "readiness")
        until((tmp_path / "inbox" / "failed").is_dir, "the first scan")
        (tmp_path / "inbox").rename(tmp_path / "elsewhere")
        degraded(running)
        assert answer(tmp_path, "/health").status_code == 200
        takes(running, "back.txt", jobs=1)


def test_a_watch_folder_mounted_over_goes_on_with_its_files(tmp_path: Path) -> None:
    with daemon(tmp_path, **DEFAULTS) as running:
        running.wait(lambda status: status.ready, "readiness")
        takes(running, "before.txt", jobs=1)
        with mounted(tmp_path / "inbox"):
            takes(running, "there.txt", jobs=2)
        takes(running, "after.txt", jobs=3)


def test_an_unreadable_watch_folder_is_reported_until_readable(
    tmp_path: Path,
) -> None:
    before = LIKE_OTHERS if os.geteuid() == 0 else ""
    with daemon(tmp_path, before=before, **DEFAULTS) as running:
        running.wait(lambda status: status.ready, "readiness")
        takes(running, "before.txt", jobs=1)
        (tmp_path / "inbox").chmod(0)
        degraded(running)
        (tmp_path / "inbox").chmod(0o755)
        takes(running, "after.txt", jobs=2)
