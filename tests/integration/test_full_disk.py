"""A disk that really is full under a running daemon: nothing fails, nothing is lost, and work goes on with the room."""

import errno
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from imgdiffd.daemon.disk import BALLAST_NAME
from imgdiffd.status import headline
from tests.integration.daemon_process import LIMIT_S, daemon, drop
from tests.integration.faulty import HOLD_STAGE, answer, faulty, never, rows, until

CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow", "hen") for obj in ("bus", "tree", "chair")]
SIZE = "160m"
LEAST_GB = 0.1


@pytest.fixture(params=[SIZE])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "imgdiffd-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a file system of its own needs root: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[Callable[[], None]]:
    """Somebody takes every byte of the disk, again and again; on leaving, or when told, they take it all away."""
    path = folder / "somebodys.log"
    full, enough = threading.Event(), threading.Event()

    def fill() -> None:
        with path.open("ab", buffering=0) as file:
            step = 1 << 20
            while not enough.is_set():
                try:
                    file.write(b"x" * step)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    if step == 1:
                        full.set()
                        enough.wait(0.005)
                        step = 1 << 20
                    else:
                        step = max(step // 16, 1)

    thread = threading.Thread(target=fill)

    def end() -> None:
        enough.set()
        thread.join()
        path.unlink(missing_ok=True)

    thread.start()
    try:
        assert full.wait(LIMIT_S)
        yield end
    finally:
        end()


def test_a_daemon_started_on_a_full_disk_waits_for_room(small_disk: Path) -> None:
    drop(small_disk, "captions.txt", CAPTIONS[:2])
    manager_path = small_disk.parent / "n"
    with filled(small_disk) as make_room, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(manager_path))
        manager.settimeout(LIMIT_S)
        with daemon(small_disk, NOTIFY_SOCKET=str(manager_path)) as running:
            assert "waiting for room" in manager.recv(4096).decode()
            status = running.wait(lambda status: status.starting, "an answer while it waits")
            assert headline(status).startswith(f"starting; disk: full at {small_disk}")
            assert answer(small_disk, "/health").status_code == 200
            assert answer(small_disk, "/ready").json() == {"ready": False, "problems": list(status.problems)}
            refused = answer(small_disk, "/funnel")
            assert (refused.status_code, refused.json()["code"]) == (503, "starting")
            make_room()
            assert [job.state for job in running.wait_done().jobs] == ["done"]
            assert running.stop() == 0


def test_a_start_that_waits_for_room_can_be_stopped(small_disk: Path) -> None:
    with filled(small_disk), daemon(small_disk) as running:
        running.wait(lambda status: status.starting, "an answer while it waits")
        assert running.stop() == 0
        assert not (small_disk / "s").exists()


def test_below_min_free_gb_nothing_starts_and_status_says_why(small_disk: Path) -> None:
    with daemon(small_disk, IMGDIFFD_MIN_FREE_GB=str(LEAST_GB)) as running:
        running.wait(lambda status: status.ready, "readiness")
        (small_disk / "somebodys.log").write_bytes(b"x" * (80 << 20))
        running.wait(lambda status: not status.ready, "the complaint")
        (problem,) = answer(small_disk, "/ready").json()["problems"]
        assert f"below min_free_gb = {LEAST_GB}; nothing new is started until there is room" in problem
        drop(small_disk, "captions.txt", CAPTIONS)
        running.wait(lambda status: bool(status.jobs), "the job")
        never(lambda: running.client.status().open_tasks > 0, "work in spite of the full disk", 0.5)
        (small_disk / "somebodys.log").unlink()
        running.wait(lambda status: status.ready, "room")
        assert [(job.state, job.failed) for job in running.wait_done().jobs] == [("done", 0)]


def test_a_disk_that_fills_under_running_batches_loses_nothing(small_disk: Path) -> None:
    with daemon(small_disk, FAKE_WORKER_DELAY_S="0.05") as running:
        running.wait(lambda status: status.ready, "readiness")
        assert (small_disk / BALLAST_NAME).exists()
        drop(small_disk, "captions.txt", CAPTIONS)
        running.wait(lambda status: any(device.running for device in status.devices), "a running batch")
        with filled(small_disk):
            status = running.wait(lambda status: "disk: " in "".join(status.problems), "the complaint")
            assert "nothing new is started until there is room" in status.problems[0]
            assert not (small_disk / BALLAST_NAME).exists()
            assert not status.ready
        running.wait(lambda status: not status.problems, "an end of the complaint")
        (job,) = running.wait_done().jobs
        assert (job.state, job.failed, job.cancelled) == ("done", 0, 0)
        assert job.sampled + job.rejected == job.captions == len(CAPTIONS)
        running.wait(lambda status: status.ready, "readiness once there is room")
        running.wait(lambda _: (small_disk / BALLAST_NAME).exists(), "new ballast")
        assert running.stop() == 0
    assert not [name for _, _, names in os.walk(small_disk) for name in names if name.startswith(".tmp-")]


@pytest.mark.parametrize("small_disk", ["60m"], indirect=True)
@pytest.mark.parametrize("least_gb", ["0", "2"])
def test_a_file_system_of_60_mb_is_used_and_recovers(small_disk: Path, least_gb: str) -> None:
    with daemon(small_disk, FAKE_WORKER_DELAY_S="0.05", IMGDIFFD_MIN_FREE_GB=least_gb) as running:
        running.wait(lambda status: status.ready, "readiness")
        drop(small_disk, "captions.txt", CAPTIONS)
        running.wait(lambda status: any(device.running for device in status.devices), "a running batch")
        with filled(small_disk):
            running.wait(lambda status: "disk: " in "".join(status.problems), "the complaint")
        running.wait(lambda status: not status.problems, "an end of the complaint")
        (job,) = running.wait_done().jobs
        assert (job.state, job.failed, job.cancelled) == ("done", 0, 0)
        assert running.stop() == 0


def test_a_batch_without_room_for_its_images_is_redone_uncharged(
    small_disk: Path,
) -> None:
    gate = small_disk / HOLD_STAGE.format("generate")
    gate.touch()
    with faulty(small_disk, IMGDIFFD_DEVICES="cpu") as running:
        running.wait(lambda status: status.ready, "readiness")
        drop(small_disk, "captions.txt", CAPTIONS[:1])

        def painting() -> bool:
            at = rows(small_disk, "SELECT stage FROM items")
            return at == [("generate",)] and running.client.status().devices[0].running == 1

        until(painting, "a batch that is about to paint")
        with filled(small_disk):
            gate.unlink()
            running.wait(lambda status: "disk: " in "".join(status.problems), "the complaint")
            running.wait(lambda status: status.devices[0].running == 0, "the end of the batch")
            assert rows(small_disk, "SELECT stage, state, attempt, crashes FROM items") == [("generate", "ready", 1, 0)]
        assert [(job.state, job.failed) for job in running.wait_done().jobs] == [("done", 0)]
        assert running.stop() == 0


@pytest.mark.parametrize("small_disk", ["60m"], indirect=True)
def test_a_job_can_be_deleted_on_a_full_disk(small_disk: Path) -> None:
    with daemon(small_disk) as running:
        drop(small_disk, "captions.txt", CAPTIONS)
        running.wait_done()
        with (small_disk / "somebodys.log").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        assert shutil.disk_usage(small_disk).free < 4096
        assert running.client.delete(1).captions == len(CAPTIONS)
        until(lambda: not list((small_disk / "pictures").rglob("1-*.png")), "the end of the images")
        (small_disk / "somebodys.log").unlink()
        running.wait(lambda status: status.ready, "readiness")
        assert running.stop() == 0
    assert rows(small_disk, "SELECT count(*) FROM items") == [(0,)]
    assert rows(small_disk, "PRAGMA integrity_check") == [("ok",)]
