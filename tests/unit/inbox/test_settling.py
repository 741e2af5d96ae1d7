"""When a file is taken: once it is completely written, and as it was when it was scanned."""

import hashlib
import os
import time
from io import BufferedReader
from pathlib import Path

import pytest

from imgdiffd.errors import InputError
from imgdiffd.inbox import Inbox
from imgdiffd.inbox.intake import Intake
from imgdiffd.inbox.scan import scan_folder, seconds_until_settled
from imgdiffd.job import JobState
from imgdiffd.settings import Settings
from tests.fakes.jobs import PROFILE, FakeJobs, drop, make_inbox, names, scan_once, scanned

pytestmark = pytest.mark.anyio


# When a file is taken


@pytest.mark.parametrize(
    ("modified_s", "unchanged_s", "wait_s"),
    [
        (100.0, 0.0, 0.0),
        (199.5, 0.0, 1.5),
        (199.5, 1.75, 0.25),
        (199.5, 2.0, 0.0),
        (500.0, 0.0, 2.0),
        (500.0, 2.0, 0.0),
    ],
)
def test_file_settles_by_our_clock_or_by_its_own_time(modified_s: float, unchanged_s: float, wait_s: float) -> None:
    assert seconds_until_settled(scanned(modified_s), unchanged_s, 200.0, 2.0) == pytest.approx(wait_s)


async def test_growing_file_waits_until_it_settles(folder: Path, jobs: FakeJobs) -> None:
    now_s = [0.0]
    inbox = Inbox(Settings(state_folder=folder.parent, settle_s=2), jobs, PROFILE, clock=lambda: now_s[0])
    file = drop(folder / "a.txt", "a dog\n")
    future = time.time() + 3600  # so that only our own clock speaks
    os.utime(file, (future, future))
    await scan_once(inbox)
    now_s[0] = 1.5
    file.write_text("a dog\na cat\n")
    os.utime(file, (future, future))
    await scan_once(inbox)
    now_s[0] = 3.0
    await scan_once(inbox)
    assert not jobs.rows
    now_s[0] = 3.5
    await scan_once(inbox)
    assert jobs.captions[1] == ["a dog", "a cat"]


async def test_a_clock_set_forward_does_not_make_a_file_complete(
    folder: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, wall_s = [0.0], [time.time()]
    monkeypatch.setattr("imgdiffd.inbox.inbox.time.time", lambda: wall_s[0])
    inbox = Inbox(Settings(state_folder=folder.parent, settle_s=2), jobs, PROFILE, clock=lambda: now_s[0])
    await scan_once(inbox)
    (folder / "a.txt").write_text("a dog\n")  # somebody is still writing it
    now_s[0], wall_s[0] = 0.5, wall_s[0] + 3600
    await scan_once(inbox)
    assert not jobs.rows
    now_s[0], wall_s[0] = 2.5, wall_s[0] + 2
    await scan_once(inbox)
    assert jobs.captions[1] == ["a dog"]


async def test_another_time_to_settle_counts_from_the_next_scan_on(folder: Path, jobs: FakeJobs) -> None:
    inbox = make_inbox(folder, jobs, settle_s=600)
    (folder / "a.txt").write_text("a dog\n")
    await scan_once(inbox)
    assert not jobs.rows
    inbox.use(Settings(state_folder=folder.parent, settle_s=0))
    await scan_once(inbox)
    assert jobs.captions[1] == ["a dog"]


@pytest.mark.usefixtures("_long_files")
async def test_file_that_changes_while_it_is_read_is_taken_again(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    file = drop(folder / "a.txt", "a dog\n")

    def grow() -> None:
        jobs.after_chunk = lambda: None
        drop(file, "a dog\na cat\n")

    jobs.after_chunk = grow
    await scan_once(inbox)
    assert jobs.rows[1].state is JobState.FAILED
    assert names(folder) == ["a.txt", "done", "failed"]
    await scan_once(inbox)
    assert jobs.captions == {1: [], 2: ["a dog", "a cat"]}
    assert names(folder / "done") == ["a.txt"]


@pytest.mark.parametrize("content", ["a dog\n", ""])  # taken, refused
@pytest.mark.parametrize("how", ["replaced", "rewritten"])
async def test_what_replaces_a_read_file_before_its_move_is_taken(
    how: str, content: str, folder: Path, inbox: Inbox, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = drop(folder / "a.txt", content)
    move_out = inbox._move_out

    async def replace_first(*told: object) -> None:
        monkeypatch.setattr(inbox, "_move_out", move_out)
        if how == "replaced":
            drop(folder / "new.txt", "a cat\n").rename(file)
        else:
            file.write_text("a cat\n")
            os.utime(file, (1, 1))
        await move_out(*told)  # type: ignore[arg-type]

    monkeypatch.setattr(inbox, "_move_out", replace_first)
    await scan_once(inbox)
    assert names(folder) == ["a.txt", "done", "failed"]
    assert names(folder / "done") == names(folder / "failed") == []
    await scan_once(inbox)
    assert jobs.captions[max(jobs.rows)] == ["a cat"]
    assert names(folder / "done") == ["a.txt"]


async def test_file_that_changed_after_the_scan_is_not_taken(folder: Path, jobs: FakeJobs) -> None:
    file = drop(folder / "a.txt")
    seen = scan_folder(folder)[0]
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


async def test_a_small_file_costs_one_transaction(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    drop(folder / "a.txt")
    drop(folder / "b.jsonl", '"a cow"\n{"caption": ""}\n')
    drop(folder / "c.json", '["a dog"')
    await scan_once(inbox)
    assert jobs.changes_of_whole_files == 2
    assert {row.name: row.state for row in jobs.rows.values()} == {
        "a.txt": JobState.ACTIVE,
        "b.jsonl": JobState.ACTIVE,
        "c.json": JobState.FAILED,
    }
    assert [problem.code for problems in jobs.unread.values() for problem in problems] == ["empty"]
    assert names(folder / "failed") == ["c.json", "c.json.reason.txt"]


async def test_a_file_that_the_store_refuses_stays_and_is_retried(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    drop(folder / "a.txt")
    jobs.broken = True
    await scan_once(inbox)
    assert names(folder) == ["a.txt", "done", "failed"]
    assert "no space left" in (inbox.degraded or "")
    jobs.broken = False
    await scan_once(inbox)
    assert [row.state for row in jobs.rows.values()] == [JobState.ACTIVE]
    assert names(folder / "done") == ["a.txt"]
