"""The disk guard: when dispatch is held back and let go, and what the ballast is for."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from imgdiffd.daemon.disk import BALLAST_NAME, CHECK_S, RECORD_BYTES, DiskGuard
from imgdiffd.errors import StoreError, StoreFullError
from imgdiffd.images.files import write_whole
from imgdiffd.schedulers.virtual_time import run_virtual

GIB = 1 << 30
BALLAST = 1 << 20


class Dispatch:
    """What is held back, by reason."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def pause(self, reason: str) -> None:
        self.reasons = [*{*self.reasons, reason}]

    def resume(self, reason: str) -> None:
        self.reasons.remove(reason)


class Disk:
    """A disk of which a test says how much is free; the ballast counts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 100 * GIB
        self.total = 200 * GIB
        self.ballast = folder / BALLAST_NAME
        self.dispatch = Dispatch()
        monkeypatch.setattr(shutil, "disk_usage", self._usage)

    def _usage(self, _path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=self.free - (BALLAST if self.ballast.exists() else 0), total=self.total)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


def guard_of(disk: Disk, min_free_gb: float = 2.0) -> DiskGuard:
    guard = DiskGuard(disk.ballast.parent, min_free_gb, ballast_bytes=BALLAST)
    guard.guard(disk.dispatch)
    return guard


def test_dispatch_is_held_below_the_disk_threshold_with_numbers(disk: Disk) -> None:
    guard = guard_of(disk)
    assert (guard.problem, disk.dispatch.reasons) == ("", [])
    disk.free = int(1.5 * GIB)
    guard.check()
    assert "1.5 GiB free" in guard.problem
    assert "min_free_gb = 2" in guard.problem
    assert disk.dispatch.reasons == ["disk"]
    disk.free = 3 * GIB
    guard.check()
    assert (guard.problem, disk.dispatch.reasons) == ("", [])


def test_the_ballast_takes_room_until_the_first_full_write(disk: Disk) -> None:
    guard = guard_of(disk)
    assert disk.ballast.stat().st_blocks * 512 >= BALLAST
    assert guard.note_full() is True
    assert not disk.ballast.exists()
    assert guard.note_full() is False, "there is nothing more to give"
    assert disk.dispatch.reasons == ["disk"]
    assert "full" in guard.problem


def test_the_room_that_the_ballast_gave_is_not_taken_for_room(disk: Disk) -> None:
    guard = guard_of(disk, min_free_gb=0)
    disk.free = BALLAST  # full, but for the ballast
    guard.note_full()
    guard.check()
    assert disk.dispatch.reasons == ["disk"]
    assert not disk.ballast.exists()
    disk.free = RECORD_BYTES + 2 * BALLAST
    guard.check()
    assert disk.dispatch.reasons == []
    assert disk.ballast.exists()


def test_after_a_full_write_what_a_batch_needs_is_enough(disk: Disk) -> None:
    guard = guard_of(disk, min_free_gb=0)
    disk.free = 0
    guard.note_full(50 << 20)
    disk.free = 40 << 20
    guard.check()
    assert "and the next needs 55 MiB" in guard.problem
    assert disk.dispatch.reasons == ["disk"]
    disk.free = 56 << 20
    guard.check()
    assert (guard.problem, disk.dispatch.reasons) == ("", [])


def test_a_disk_of_60_mb_is_worked_on_and_recovers(disk: Disk) -> None:
    disk.total = disk.free = 60 << 20
    guard = guard_of(disk)
    assert guard.problem == "", "2 GiB can never be free there"
    disk.free = 5 << 20
    guard.check()
    assert "below a tenth of the disk, which is smaller than min_free_gb = 2" in guard.problem
    disk.free = 0
    guard.note_full(1 << 30)
    disk.free = 30 << 20
    guard.check()
    assert (guard.problem, disk.dispatch.reasons) == ("", [])


def test_no_ballast_is_taken_where_that_would_leave_too_little(disk: Disk) -> None:
    disk.free = 2 * GIB + RECORD_BYTES + BALLAST // 2
    guard_of(disk)
    assert not disk.ballast.exists()
    assert disk.dispatch.reasons == []


def test_a_disk_without_room_for_ballast_is_used_without(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert guard_of(disk).problem == ""
    assert list(disk.ballast.parent.iterdir()) == []


def changing(disk: Disk, until_s: float, error: Exception) -> tuple[DiskGuard, Callable[[], float]]:
    """A change that fails with `error` before `until_s` of virtual time; running it returns when it succeeded."""
    guard = guard_of(disk)

    async def change() -> float:
        if anyio.current_time() < until_s:
            disk.free = 0
            raise error
        return anyio.current_time()

    async def main() -> float:
        async with anyio.create_task_group() as group:

            async def make_room() -> None:
                await anyio.sleep(until_s)
                disk.free = 100 * GIB

            group.start_soon(make_room)
            return await guard.retry_while_full(change)
        raise AssertionError

    return guard, lambda: run_virtual(main)


def test_recording_waits_for_room_and_then_goes_on(disk: Disk) -> None:
    guard, run = changing(disk, 1000.0, StoreFullError("full"))
    assert 1000.0 <= run() <= 1000.0 + CHECK_S < 1030.0
    assert guard.problem == ""


def test_other_errors_of_the_database_are_not_waited_for(disk: Disk) -> None:
    _, run = changing(disk, 1000.0, StoreError("damaged"))
    with pytest.raises(BaseExceptionGroup) as caught:
        run()
    assert caught.group_contains(StoreError, match="damaged")


def test_a_start_on_a_full_disk_frees_the_ballast_then_waits(disk: Disk) -> None:
    disk.ballast.write_bytes(b"")
    disk.free = BALLAST
    guard = DiskGuard(disk.ballast.parent, 2.0, ballast_bytes=BALLAST)
    said: list[tuple[float, str]] = []

    def say(line: str) -> None:
        assert not disk.ballast.exists()
        said.append((anyio.current_time(), line))
        if len(said) == 3:
            disk.free = GIB

    run_virtual(lambda: guard.wait_startable(say))
    assert [at_s for at_s, _ in said] == [0, CHECK_S, 2 * CHECK_S]
    assert "waiting for room" in said[0][1]
    guard.guard(disk.dispatch)
    assert disk.dispatch.reasons == ["disk"], "it starts, and holds dispatch back"


def test_images_that_found_no_room_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path, {"1-1.png": b"one", "1-2.png": b"two"})
    assert list(tmp_path.iterdir()) == []
