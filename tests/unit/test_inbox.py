"""The laws of `imgdiffd.inbox`: what is taken, when, exactly once, and where it goes."""

# ruff: noqa: ASYNC240 - these tests look at a folder between awaits; nothing else shares their loop
import errno
import hashlib
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import cast

import anyio
import pytest

from imgdiffd.captions import CaptionProblem, CaptionRecord
from imgdiffd.errors import InputError, StoreError
from imgdiffd.inbox import Fingerprint, Inbox, Intake, intake
from imgdiffd.inbox.intake import open_regular
from imgdiffd.inbox.sightings import Sighting, is_left_alone, look, wait_until_settled
from imgdiffd.inbox.watch import FolderWatch
from imgdiffd.job import JobState
from imgdiffd.profile import Profile, load_profile
from imgdiffd.settings import Settings
from imgdiffd.store.rows import JobRow, Whole

pytestmark = pytest.mark.anyio

LONG_AGO_S = 1_000_000_000
PROFILE = load_profile("default")


class FakeJobs:
    """A store in memory that keeps the real one's laws on duplicates and states; `broken` makes every write fail."""

    def __init__(self) -> None:
        self.rows: dict[int, JobRow] = {}
        self.captions: dict[int, list[str]] = {}
        self.problems: list[CaptionProblem] = []
        self.changes_of_whole_files = 0
        self.broken = False
        self.after_chunk: Callable[[], None] = lambda: None
        self.reading = anyio.Event()
        self.proceed: anyio.Event | None = None

    def living(self) -> list[JobRow]:
        return [row for row in self.rows.values() if row.state not in (JobState.FAILED, JobState.CANCELLED)]

    def _check(self) -> None:
        if self.broken:
            raise StoreError("no space left", hint="free some")

    def change(self, job: int, state: JobState, error: str = "") -> JobRow:
        if self.rows[job].state is not JobState.READING:
            raise InputError(f"job {job}: it is {self.rows[job].state}", code="wrong_job_state")
        values = {name: getattr(self.rows[job], name) for name in JobRow.__slots__}
        values |= {"state": state, "error": error, "total": len(self.captions[job])}
        self.rows[job] = JobRow(**values)
        return self.rows[job]

    async def add_job(
        self, name: str, source: str, sha256: str, profile: Profile, priority: int = 0, whole: Whole | None = None
    ) -> JobRow:
        self._check()
        same = [row for row in self.living() if row.sha256 == sha256 and row.profile == profile.name]
        state = JobState.DONE if same else JobState.READING
        job = len(self.rows) + 1
        self.rows[job] = JobRow(
            id=job, name=name, source=source, sha256=sha256, profile=profile.name, group="1", priority=priority,
            state=state, created_at=time.time(), finished_at=None, total=0, duplicates=0, problems=0,
            duplicate_of=same[0].id if same else None, error="", states={},
        )  # fmt: skip
        self.captions[job] = []
        if same or whole is None:
            return self.rows[job]
        self.changes_of_whole_files += 1
        self.captions[job] += [record.text for record in cast(Sequence[CaptionRecord], whole[0])]
        self.problems += cast(Sequence[CaptionProblem], whole[1])
        return self.change(job, JobState.ACTIVE)

    async def add_captions(
        self, job: int, records: Sequence[CaptionRecord], problems: Sequence[CaptionProblem] = ()
    ) -> tuple[int, int]:
        self._check()
        self.reading.set()
        if self.proceed is not None:
            await self.proceed.wait()
        if self.rows[job].state is not JobState.READING:
            raise InputError(f"job {job}: cannot take captions", code="wrong_job_state")
        self.captions[job] += [record.text for record in records]
        self.problems += problems
        self.after_chunk()
        return len(records), 0

    async def jobs(self) -> list[JobRow]:
        return list(self.rows.values())

    async def finish_reading(self, job: int) -> JobRow:
        self._check()
        return self.change(job, JobState.ACTIVE)

    async def fail_job(self, job: int, error: str) -> JobRow:
        self._check()
        self.captions[job] = []
        return self.change(job, JobState.FAILED, error)


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "inbox"
    path.mkdir(parents=True)
    return path


def make_inbox(folder: Path, jobs: FakeJobs, **over: object) -> Inbox:
    return Inbox(Settings.model_validate({"state_folder": folder.parent, **over}), jobs, PROFILE)


@pytest.fixture
def inbox(folder: Path, jobs: FakeJobs) -> Inbox:
    return make_inbox(folder, jobs)


@pytest.fixture
def _long_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as one that is read in chunks."""
    monkeypatch.setattr(intake, "SMALL_BYTES", 0)


def drop(path: Path, content: str | bytes = "a dog\na cat\n") -> Path:
    """Put a file there that has rested for long."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def reason_of(folder: Path, name: str) -> str:
    return (folder / "failed" / f"{name}.reason.txt").read_text()


# What becomes of a file


async def test_file_becomes_a_job_with_its_captions_and_goes_to_done(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    content = "a dog\na cat\n"
    drop(folder / "captions.txt", content)
    await inbox.scan_once()
    row = jobs.rows[1]
    assert (row.name, row.state, row.profile) == ("captions.txt", JobState.ACTIVE, "default")
    assert row.sha256 == hashlib.sha256(content.encode()).hexdigest()
    assert jobs.captions[1] == ["a dog", "a cat"]
    assert names(folder) == ["done", "failed"]
    assert (folder / "done" / "captions.txt").read_text() == content


async def test_the_daemon_is_told_of_every_job(folder: Path, jobs: FakeJobs) -> None:
    told: list[int] = []
    inbox = Inbox(Settings(state_folder=folder.parent), jobs, PROFILE, on_job=lambda: told.append(len(jobs.rows)))
    drop(folder / "a.txt")
    await inbox.scan_once()
    assert told == [1]


async def test_useless_file_goes_to_failed_with_its_reason_and_others_go_on(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    drop(folder / "a.txt", b"a dog\n\xff\xfe\n")
    drop(folder / "b.txt", "a cat\n")
    await inbox.scan_once()
    states = {row.name: row.state for row in jobs.rows.values()}
    assert states == {"a.txt": JobState.FAILED, "b.txt": JobState.ACTIVE}
    assert names(folder / "failed") == ["a.txt", "a.txt.reason.txt"]
    assert "line 2: not UTF-8" in reason_of(folder, "a.txt")
    assert names(folder / "done") == ["b.txt"]
    assert inbox.degraded is None


async def test_bad_records_do_not_fail_the_file(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    drop(folder / "a.jsonl", '"a dog"\n{"caption": ""}\n"a cat"\n')
    await inbox.scan_once()
    assert jobs.captions[1] == ["a dog", "a cat"]
    assert [(problem.line, problem.code) for problem in jobs.problems] == [(2, "empty")]


async def test_same_content_twice_is_one_set_of_work_and_both_files_leave(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    drop(folder / "a.txt")
    drop(folder / "b.txt")
    await inbox.scan_once()
    assert sorted(row.duplicate_of or 0 for row in jobs.rows.values()) == [0, 1]
    assert sum(map(len, jobs.captions.values())) == 2
    assert names(folder / "done") == ["a.txt", "b.txt"]


async def test_name_that_is_taken_in_done_gets_a_number(folder: Path, inbox: Inbox) -> None:
    for content in ("a dog", "a cat", "a cow"):
        drop(folder / "a.txt", content)
        await inbox.scan_once()
    assert names(folder / "done") == ["a-2.txt", "a-3.txt", "a.txt"]
    assert (folder / "done" / "a.txt").read_text() == "a dog"


async def test_longest_name_finds_room_for_its_reason(folder: Path, inbox: Inbox) -> None:
    drop(folder / ("x" * 251 + ".txt"), b"\0")
    await inbox.scan_once()
    assert len(names(folder / "failed")) == 2


# What is left alone, what is refused


@pytest.mark.parametrize("name", [".hidden.txt", "a.txt.part", "a.tmp", "A.PART"])
async def test_unfinished_and_hidden_names_are_left_alone(
    name: str, folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    assert is_left_alone(name)
    drop(folder / name)
    await inbox.scan_once()
    assert names(folder) == sorted([name, "done", "failed"])
    assert not jobs.rows


async def test_folders_are_not_looked_into(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    (folder / "more").mkdir()
    drop(folder / "more" / "a.txt")
    await inbox.scan_once()
    assert not jobs.rows


async def test_link_pipe_and_socket_are_refused_and_nothing_outside_is_read(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    secret = drop(folder.parent / "secret.txt", "a secret\n")
    (folder / "link.txt").symlink_to(secret)
    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.txt"))
    await inbox.scan_once()
    assert not jobs.rows
    assert names(folder) == ["done", "failed"]
    assert "a symbolic link" in reason_of(folder, "link.txt")
    assert "a named pipe" in reason_of(folder, "pipe.txt")
    assert "a socket" in reason_of(folder, "socket.txt")
    assert (folder / "failed" / "link.txt").is_symlink()
    assert secret.read_text() == "a secret\n"


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFLNK, stat.S_IFIFO])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(kind: int) -> None:
    with pytest.raises(InputError) as caught:
        Sighting("a.txt", kind, Fingerprint(0, 0, 0, 0, 0)).refuse()
    assert caught.value.code == "not_a_file"


def test_file_swapped_for_a_link_or_pipe_after_the_look_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(InputError) as caught:
            open_regular(tmp_path / name)
        assert caught.value.code == "not_a_file"


async def test_name_that_is_not_utf8_is_refused_and_others_go_on(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    bad = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt"))
    drop(bad)
    drop(folder / "good.txt")
    await inbox.scan_once()
    assert [row.name for row in jobs.rows.values()] == ["good.txt"]
    assert not bad.exists()
    assert "not UTF-8" in reason_of(folder, os.fsdecode(b"caf\xe9.txt"))


async def test_link_in_place_of_done_stops_the_inbox(
    folder: Path, inbox: Inbox, jobs: FakeJobs, tmp_path: Path
) -> None:
    (folder / "done").symlink_to(tmp_path)
    drop(folder / "a.txt")
    await inbox.scan_once()
    assert not jobs.rows
    assert "a link" in (inbox.degraded or "")


# When a file is taken


def sighting(modified_s: float) -> Sighting:
    return Sighting("a.txt", stat.S_IFREG, Fingerprint(1, 2, 3, int(modified_s * 1e9), 5))


@pytest.mark.parametrize(
    ("modified_s", "rested_s", "wait_s"),
    [
        (100.0, 0.0, 0.0),
        (199.5, 0.0, 1.5),
        (199.5, 1.75, 0.25),
        (199.5, 2.0, 0.0),
        (500.0, 0.0, 2.0),
        (500.0, 2.0, 0.0),
    ],
)
def test_file_is_taken_after_its_rest_by_our_clock_or_its_own_time(
    modified_s: float, rested_s: float, wait_s: float
) -> None:
    assert wait_until_settled(sighting(modified_s), rested_s, 200.0, 2.0) == pytest.approx(wait_s)


async def test_growing_file_waits_until_it_rests(folder: Path, jobs: FakeJobs) -> None:
    now_s = [0.0]
    inbox = Inbox(Settings(state_folder=folder.parent, settle_s=2), jobs, PROFILE, clock=lambda: now_s[0])
    file = drop(folder / "a.txt", "a dog\n")
    future = time.time() + 3600  # so that only our own clock speaks
    os.utime(file, (future, future))
    await inbox.scan_once()
    now_s[0] = 1.5
    file.write_text("a dog\na cat\n")
    os.utime(file, (future, future))
    await inbox.scan_once()
    now_s[0] = 3.0
    await inbox.scan_once()
    assert not jobs.rows
    now_s[0] = 3.5
    await inbox.scan_once()
    assert jobs.captions[1] == ["a dog", "a cat"]


async def test_another_time_to_settle_counts_from_the_next_look_on(folder: Path, jobs: FakeJobs) -> None:
    inbox = make_inbox(folder, jobs, settle_s=600)
    (folder / "a.txt").write_text("a dog\n")
    await inbox.scan_once()
    assert not jobs.rows
    inbox.use(Settings(state_folder=folder.parent, settle_s=0))
    await inbox.scan_once()
    assert jobs.captions[1] == ["a dog"]


@pytest.mark.usefixtures("_long_files")
async def test_file_that_changes_while_it_is_read_is_taken_anew(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    file = drop(folder / "a.txt", "a dog\n")

    def grow() -> None:
        jobs.after_chunk = lambda: None
        drop(file, "a dog\na cat\n")

    jobs.after_chunk = grow
    await inbox.scan_once()
    assert jobs.rows[1].state is JobState.FAILED
    assert names(folder) == ["a.txt", "done", "failed"]
    await inbox.scan_once()
    assert jobs.captions == {1: [], 2: ["a dog", "a cat"]}
    assert names(folder / "done") == ["a.txt"]


async def test_file_that_changed_after_the_look_is_not_taken(folder: Path, jobs: FakeJobs) -> None:
    file = drop(folder / "a.txt")
    seen = look(folder)[0]
    drop(file, "a cow, and more\n")
    with pytest.raises(InputError) as caught:
        await Intake(jobs).take_file(file, "a.txt", PROFILE, expected=seen.fingerprint)
    assert caught.value.code == "changed"
    assert not jobs.rows


# What may go wrong


@pytest.mark.parametrize("content", ["a dog\n", "a dog\na cat\n" * 10_000], ids=["small", "long"])
async def test_file_that_grows_while_it_is_hashed_becomes_no_job(
    content: str, folder: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = drop(folder / "a.txt", content)
    real = hashlib.file_digest

    def grow(opened: BufferedReader, name: str) -> object:
        drop(file, content + "a cow\n")
        return real(opened, name)

    monkeypatch.setattr(hashlib, "file_digest", grow)
    with pytest.raises(InputError) as caught:
        await Intake(jobs).take_file(file, "a.txt", PROFILE)
    assert caught.value.code == "changed"
    assert not jobs.rows


async def test_small_file_costs_one_change_of_the_store_and_a_useless_one_fails_with_its_reason(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    drop(folder / "a.txt")
    drop(folder / "b.jsonl", '"a cow"\n{"caption": ""}\n')
    drop(folder / "c.json", '["a dog"')
    await inbox.scan_once()
    assert jobs.changes_of_whole_files == 2
    assert {row.name: row.state for row in jobs.rows.values()} == {
        "a.txt": JobState.ACTIVE,
        "b.jsonl": JobState.ACTIVE,
        "c.json": JobState.FAILED,
    }
    assert [problem.code for problem in jobs.problems] == ["empty"]
    assert names(folder / "failed") == ["c.json", "c.json.reason.txt"]


async def test_store_that_takes_no_small_file_is_asked_again_and_the_file_stays_till_then(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    drop(folder / "a.txt")
    jobs.broken = True
    await inbox.scan_once()
    assert names(folder) == ["a.txt", "done", "failed"]
    assert "no space left" in (inbox.degraded or "")
    jobs.broken = False
    await inbox.scan_once()
    assert [row.state for row in jobs.rows.values()] == [JobState.ACTIVE]
    assert names(folder / "done") == ["a.txt"]


async def test_file_that_leaves_during_a_look_is_not_missed_afterwards(
    folder: Path, jobs: FakeJobs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_inbox(folder, jobs, settle_s=0)
    drop(folder / "a.txt")
    await box.scan_once()
    stale = [sighting(1.0)]

    def look_slowly(_: Path) -> list[Sighting]:
        box._left.add("a.txt")  # as a worker does when the file has been moved meanwhile
        return stale

    monkeypatch.setattr("imgdiffd.inbox.inbox.look", look_slowly)
    await box.scan_once()
    assert not caplog.records
    assert len(jobs.rows) == 1


@pytest.mark.usefixtures("_long_files")
async def test_full_disk_loses_nothing_and_the_file_is_taken_later(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    drop(folder / "a.txt")

    def break_down() -> None:
        jobs.broken = True

    jobs.after_chunk = break_down
    await inbox.scan_once()
    assert "no space left" in (inbox.degraded or "")
    await inbox.scan_once()
    assert names(folder) == ["a.txt", "done", "failed"]
    jobs.broken = False
    jobs.after_chunk = lambda: None
    await inbox.scan_once()
    assert inbox.degraded is None
    assert [row.state for row in jobs.rows.values()] == [JobState.FAILED, JobState.ACTIVE]
    assert jobs.captions == {1: [], 2: ["a dog", "a cat"]}
    assert names(folder / "done") == ["a.txt"]


async def test_killed_after_the_job_and_before_the_move_nothing_is_doubled(folder: Path, jobs: FakeJobs) -> None:
    file = drop(folder / "a.txt")
    await Intake(jobs).take_file(file, "a.txt", PROFILE)
    await watch_until(make_inbox(folder, jobs), folder, lambda: names(folder / "done") == ["a.txt"])
    assert jobs.captions == {1: ["a dog", "a cat"]}


async def test_file_put_where_a_taken_one_was_is_told_to_be_its_copy(folder: Path, jobs: FakeJobs) -> None:
    file = drop(folder / "a.txt")
    await Intake(jobs).take_file(file, "a.txt", PROFILE)
    file.unlink()
    drop(file)
    await watch_until(make_inbox(folder, jobs), folder, lambda: names(folder / "done") == ["a.txt"])
    assert [row.duplicate_of for row in jobs.rows.values()] == [None, 1]


async def test_move_that_fails_is_repeated_without_taking_the_file_again(
    folder: Path, inbox: Inbox, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(folder / "a.txt")
    real = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Path, "rename", refuse)
    await inbox.scan_once()
    assert "no room" in (inbox.degraded or "")
    monkeypatch.setattr(Path, "rename", real)
    await inbox.scan_once()
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
    await inbox.scan_once()
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
    await inbox.scan_once()
    assert str(folder) in (inbox.degraded or "")
    if how != "deleted":
        folder.unlink()
    folder.mkdir()
    drop(folder / "a.txt")
    await inbox.scan_once()
    assert inbox.degraded is None
    assert len(jobs.rows) == 1


# The running watch


async def wait_until(condition: Callable[[], bool], watch: FolderWatch) -> None:
    with anyio.fail_after(10):
        while not condition():
            await watch.wait_hint()


async def watch_until(inbox: Inbox, folder: Path, condition: Callable[[], bool]) -> None:
    """The inbox runs until `condition` holds of the files in `done`."""
    (folder / "done").mkdir()
    with FolderWatch(folder / "done") as watch:
        async with anyio.create_task_group() as group:
            group.start_soon(inbox.run)
            await wait_until(condition, watch)
            group.cancel_scope.cancel()


async def test_file_renamed_into_place_is_taken_at_once_without_waiting_for_a_scan(
    folder: Path, jobs: FakeJobs
) -> None:
    inbox = make_inbox(folder, jobs, poll_s=600, settle_s=600)
    done = folder / "done"
    done.mkdir()
    outside = drop(folder.parent / "a.txt", "a dog\n")
    os.utime(outside)
    with FolderWatch(folder) as watch, FolderWatch(done) as watch_done:
        async with anyio.create_task_group() as group:
            group.start_soon(inbox.run)
            await wait_until((folder / "failed").is_dir, watch)
            os.rename(outside, folder / "a.txt")
            await wait_until(lambda: names(done) == ["a.txt"], watch_done)
            group.cancel_scope.cancel()
    assert jobs.captions[1] == ["a dog"]


async def test_name_that_is_not_utf8_does_not_end_the_watch(folder: Path) -> None:
    with FolderWatch(folder) as watch:
        raw = os.fsencode(folder) + b"/caf\xe9.txt"
        outside = folder.parent / "x"
        outside.touch()
        os.rename(os.fsencode(outside), raw)
        hint = await watch.wait_hint()
        assert hint.renamed == {os.fsdecode(b"caf\xe9.txt")}
        assert not hint.gone


async def test_watch_says_when_its_folder_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    with FolderWatch(folder) as watch:
        folder.rename(tmp_path / "elsewhere")
        assert (await watch.wait_hint()).gone


async def test_written_file_is_no_file_renamed_into_place(folder: Path) -> None:
    with FolderWatch(folder) as watch:
        (folder / "a.txt").write_text("a dog\n")
        assert not (await watch.wait_hint()).renamed


# Submitting


async def body(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_submitted_body_becomes_a_job_under_its_name_profile_and_priority(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    await inbox.scan_once()
    row = await inbox.submit("a.txt", body(b"a d", b"og\n"), load_profile("paper"), 7)
    assert (row.name, row.profile, row.priority, row.state) == ("a.txt", "paper", 7, JobState.ACTIVE)
    assert jobs.captions[row.id] == ["a dog"]
    assert names(folder) == ["done", "failed"]
    assert names(folder / "done") == ["a.txt"]


async def test_submitted_file_that_is_useless_is_refused_and_kept(folder: Path, inbox: Inbox) -> None:
    await inbox.scan_once()
    with pytest.raises(InputError) as caught:
        await inbox.submit("a.json", body(b'["a dog"'), None, 0)
    assert caught.value.code == "bad_json"
    assert names(folder / "failed") == ["a.json", "a.json.reason.txt"]
    assert names(folder) == ["done", "failed"]


@pytest.mark.parametrize("name", ["../a.txt", "b/a.txt", "/etc/a.txt", ".a.txt", "a\nb.txt", "", "a\0.txt", ".."])
async def test_submitted_name_with_a_folder_is_refused(name: str, folder: Path, inbox: Inbox) -> None:
    with pytest.raises(InputError) as caught:
        await inbox.submit(name, body(b"a dog"), None, 0)
    assert caught.value.code == "bad_name"
    assert names(folder) == []


async def test_body_that_breaks_off_leaves_nothing(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a dog\n"
        raise RuntimeError("the client left")

    with pytest.raises(RuntimeError, match="the client left"):
        await inbox.submit("a.txt", broken(), None, 0)
    assert names(folder) == []
    assert not jobs.rows


async def test_body_that_cannot_be_kept_is_a_store_error(folder: Path, inbox: Inbox) -> None:
    folder.rmdir()
    with pytest.raises(StoreError, match="cannot keep a"):
        await inbox.submit("a.txt", body(b"a dog"), None, 0)


async def test_what_a_killed_daemon_was_being_sent_is_removed_at_the_start(folder: Path, jobs: FakeJobs) -> None:
    drop(folder / f".submitted-{'0' * 32}.part")
    drop(folder / ".other.part")
    with FolderWatch(folder) as watch:
        async with anyio.create_task_group() as group:
            group.start_soon(make_inbox(folder, jobs).run)
            await wait_until((folder / "failed").is_dir, watch)
            group.cancel_scope.cancel()
    assert names(folder) == [".other.part", "done", "failed"]
