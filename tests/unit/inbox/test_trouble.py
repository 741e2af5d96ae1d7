"""What goes wrong around a file: full disks, kills, moves that fail, folders that vanish."""

# ruff: noqa: ASYNC240 - these tests look at a folder between awaits; nothing else shares their loop
import errno
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from imgdiffd.inbox import Inbox
from imgdiffd.inbox.intake import Intake
from imgdiffd.inbox.scan import ScannedFile
from imgdiffd.job import JobState
from tests.fakes.jobs import (
    PROFILE,
    FakeJobs,
    drop,
    make_inbox,
    names,
    scan_once,
    scanned,
    watch_until,
)

pytestmark = pytest.mark.anyio


async def test_file_that_leaves_during_a_scan_is_not_missed_afterwards(
    folder: Path, jobs: FakeJobs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_inbox(folder, jobs, settle_s=0)
    drop(folder / "a.txt")
    await scan_once(box)
    stale = [scanned(1.0)]

    def scan_slowly(_: Path) -> list[ScannedFile]:
        box._finished.add("a.txt")  # as a worker does when the file has been moved meanwhile
        return stale

    monkeypatch.setattr("imgdiffd.inbox.inbox.scan_folder", scan_slowly)
    await scan_once(box)
    assert not caplog.records
    assert len(jobs.rows) == 1


@pytest.mark.usefixtures("_long_files")
async def test_full_disk_loses_nothing_and_the_file_is_taken_later(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    drop(folder / "a.txt")

    def break_down() -> None:
        jobs.broken = True

    jobs.after_chunk = break_down
    await scan_once(inbox)
    assert "no space left" in (inbox.degraded or "")
    await scan_once(inbox)
    assert names(folder) == ["a.txt", "done", "failed"]
    jobs.broken = False
    jobs.after_chunk = lambda: None
    await scan_once(inbox)
    assert inbox.degraded is None
    assert [row.state for row in jobs.rows.values()] == [JobState.FAILED, JobState.ACTIVE]
    assert jobs.captions == {1: [], 2: ["a dog", "a cat"]}
    assert names(folder / "done") == ["a.txt"]


async def test_a_kill_between_job_and_move_doubles_nothing(folder: Path, jobs: FakeJobs) -> None:
    file = drop(folder / "a.txt")
    await Intake(jobs).take_file(file, "a.txt", PROFILE)
    await watch_until(make_inbox(folder, jobs), folder, lambda: names(folder / "done") == ["a.txt"])
    assert jobs.captions == {1: ["a dog", "a cat"]}


async def test_file_put_where_a_taken_one_was_becomes_its_copy(folder: Path, jobs: FakeJobs) -> None:
    file = drop(folder / "a.txt")
    row = await Intake(jobs).take_file(file, "a.txt", PROFILE)
    jobs.rows[row.id] = replace(row, created_at=row.created_at - 1)  # a file's times are coarser than our clock
    file.unlink()
    drop(file)
    await watch_until(make_inbox(folder, jobs), folder, lambda: names(folder / "done") == ["a.txt"])
    assert [row.duplicate_of for row in jobs.rows.values()] == [None, 1]


async def test_a_failed_move_is_retried_without_a_second_job(
    folder: Path, inbox: Inbox, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(folder / "a.txt")
    real = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Path, "rename", refuse)
    await scan_once(inbox)
    assert "no room" in (inbox.degraded or "")
    monkeypatch.setattr(Path, "rename", real)
    await scan_once(inbox)
    assert len(jobs.rows) == 1
    assert names(folder / "done") == ["a.txt"]
    assert inbox.degraded is None


@pytest.mark.usefixtures("_long_files")
async def test_job_cancelled_while_it_is_read_sends_its_file_to_failed(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    drop(folder / "a.txt")

    def cancel() -> None:
        jobs.change(1, JobState.CANCELLED)

    jobs.after_chunk = cancel
    await scan_once(inbox)
    assert jobs.rows[1].state is JobState.CANCELLED
    assert names(folder / "failed") == ["a.txt", "a.txt.reason.txt"]


@pytest.mark.usefixtures("_long_files")
async def test_copy_waits_while_its_original_is_read(folder: Path, jobs: FakeJobs) -> None:
    jobs.proceed = anyio.Event()
    intake = Intake(jobs)
    first, second = drop(folder / "a.txt"), drop(folder / "b.txt")
    async with anyio.create_task_group() as group:
        group.start_soon(intake.take_file, first, "a.txt", PROFILE)
        await jobs.reading.wait()
        group.start_soon(intake.take_file, second, "b.txt", PROFILE)
        await anyio.wait_all_tasks_blocked()
        assert len(jobs.rows) == 1
        jobs.proceed.set()
    assert jobs.rows[2].duplicate_of == 1


@pytest.mark.parametrize("how", ["deleted", "replaced by a file"])
async def test_lost_inbox_degrades_and_recovers_by_itself(how: str, folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    folder.rmdir()
    if how != "deleted":
        folder.touch()
    await scan_once(inbox)
    assert str(folder) in (inbox.degraded or "")
    if how != "deleted":
        folder.unlink()
    folder.mkdir()
    drop(folder / "a.txt")
    await scan_once(inbox)
    assert inbox.degraded is None
    assert len(jobs.rows) == 1
