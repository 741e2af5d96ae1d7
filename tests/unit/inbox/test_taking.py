"""What becomes of a file, and which files are ignored or refused."""

# ruff: noqa: ASYNC240 - these tests look at a folder between awaits; nothing else shares their loop
import hashlib
import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgdiffd.errors import InputError
from imgdiffd.inbox import Inbox
from imgdiffd.inbox.opened import Fingerprint, open_regular
from imgdiffd.inbox.outbox import Outbox
from imgdiffd.inbox.scan import ScannedFile, is_ignored
from imgdiffd.job import JobState
from imgdiffd.settings import Settings
from tests.fakes.jobs import PROFILE, FakeJobs, drop, names, reason_of, scan_once

pytestmark = pytest.mark.anyio


# What becomes of a file


async def test_file_becomes_a_job_with_its_captions_and_goes_to_done(
    folder: Path, inbox: Inbox, jobs: FakeJobs
) -> None:
    content = "a dog\na cat\n"
    drop(folder / "captions.txt", content)
    await scan_once(inbox)
    row = jobs.rows[1]
    assert (row.name, row.state, row.profile) == ("captions.txt", JobState.ACTIVE, "default")
    assert row.sha256 == hashlib.sha256(content.encode()).hexdigest()
    assert jobs.captions[1] == ["a dog", "a cat"]
    assert names(folder) == ["done", "failed"]
    assert (folder / "done" / "captions.txt").read_text() == content


async def test_on_job_is_called_after_every_job(folder: Path, jobs: FakeJobs) -> None:
    told: list[int] = []
    inbox = Inbox(Settings(state_folder=folder.parent), jobs, PROFILE, on_job=lambda: told.append(len(jobs.rows)))
    drop(folder / "a.txt")
    await scan_once(inbox)
    assert told == [1]


async def test_a_useless_file_goes_to_failed_with_its_reason(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    drop(folder / "a.txt", b"a dog\n\xff\xfe\n")
    drop(folder / "b.txt", "a cat\n")
    await scan_once(inbox)
    states = {row.name: row.state for row in jobs.rows.values()}
    assert states == {"a.txt": JobState.FAILED, "b.txt": JobState.ACTIVE}
    assert names(folder / "failed") == ["a.txt", "a.txt.reason.txt"]
    assert "line 2: not UTF-8" in reason_of(folder, "a.txt")
    assert names(folder / "done") == ["b.txt"]
    assert inbox.degraded is None


async def test_bad_records_do_not_fail_the_file(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    drop(folder / "a.jsonl", '"a dog"\n{"caption": ""}\n"a cat"\n')
    await scan_once(inbox)
    assert jobs.captions[1] == ["a dog", "a cat"]
    assert [(problem.line, problem.code) for problem in jobs.unread[1]] == [(2, "empty")]
    table = (folder / "done" / "a.jsonl.problems.tsv").read_text()
    assert table == "line\treason\tmessage\n2\tempty\tthe caption has no text\n"


async def test_very_many_problems_are_listed_in_part(
    folder: Path, inbox: Inbox, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgdiffd.inbox.inbox.LISTED_PROBLEMS", 2)
    drop(folder / "a.jsonl", '"a dog"\n' + "1\n" * 5)
    await scan_once(inbox)
    lines = (folder / "done" / "a.jsonl.problems.tsv").read_text().splitlines()
    assert len(lines) == 4
    assert lines[-1].endswith("and 3 more: `imgdiffd problems 1`")


async def test_the_same_content_twice_is_one_set_of_work(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    drop(folder / "a.txt")
    drop(folder / "b.txt")
    await scan_once(inbox)
    assert sorted(row.duplicate_of or 0 for row in jobs.rows.values()) == [0, 1]
    assert sum(map(len, jobs.captions.values())) == 2
    assert names(folder / "done") == ["a.txt", "b.txt"]


async def test_name_that_is_taken_in_done_gets_a_number(folder: Path, inbox: Inbox) -> None:
    for content in ("a dog", "a cat", "a cow"):
        drop(folder / "a.txt", content)
        await scan_once(inbox)
    assert names(folder / "done") == ["a-2.txt", "a-3.txt", "a.txt"]
    assert (folder / "done" / "a.txt").read_text() == "a dog"


@pytest.mark.parametrize("names_of", [("a.jsonl.problems.tsv", "a.jsonl"), ("a.jsonl", "a.jsonl.problems.tsv")])
async def test_a_table_of_problems_replaces_no_caption_file(
    folder: Path, inbox: Inbox, names_of: tuple[str, str]
) -> None:
    contents = {"a.jsonl.problems.tsv": "caption\na dog\n", "a.jsonl": '{"caption": "a cat"}\n{"caption": ""}\n'}
    for name in names_of:
        drop(folder / name, contents[name])
        await scan_once(inbox)
    kept = [path.read_text() for path in (folder / "done").iterdir()]
    assert set(contents.values()) < set(kept)
    assert len(kept) == 3


async def test_longest_name_finds_room_for_its_reason(folder: Path, inbox: Inbox) -> None:
    drop(folder / ("x" * 251 + ".txt"), b"\0")
    await scan_once(inbox)
    assert len(names(folder / "failed")) == 2


# What is ignored, what is refused


@pytest.mark.parametrize("name", [".hidden.txt", "a.txt.part", "a.tmp", "A.PART"])
async def test_unfinished_and_hidden_names_are_ignored(name: str, folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    assert is_ignored(name)
    drop(folder / name)
    await scan_once(inbox)
    assert names(folder) == sorted([name, "done", "failed"])
    assert not jobs.rows


async def test_a_folder_goes_to_failed_with_its_reason(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    (folder / "more").mkdir()
    (folder / "lost+found").mkdir()
    drop(folder / "more" / "a.txt")
    await scan_once(inbox)
    assert names(folder) == ["done", "failed", "lost+found", "more"]  # somebody may still be copying into it
    os.utime(folder / "more", (1, 1))
    await scan_once(inbox)
    assert not jobs.rows
    assert "imgdiffd submit FOLDER" in reason_of(folder, "more")
    assert names(folder / "failed" / "more") == ["a.txt"]
    assert inbox.degraded is None


async def test_links_pipes_and_sockets_are_refused_unread(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    secret = drop(folder.parent / "secret.txt", "a secret\n")
    (folder / "link.txt").symlink_to(secret)
    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.txt"))
    await scan_once(inbox)
    assert not jobs.rows
    assert names(folder) == ["done", "failed"]
    assert "a symbolic link" in reason_of(folder, "link.txt")
    assert "a named pipe" in reason_of(folder, "pipe.txt")
    assert "a socket" in reason_of(folder, "socket.txt")
    assert (folder / "failed" / "link.txt").is_symlink()
    assert secret.read_text() == "a secret\n"


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFLNK, stat.S_IFIFO])
def test_only_regular_files_are_opened(kind: int) -> None:
    with pytest.raises(InputError) as caught:
        ScannedFile("a.txt", kind, Fingerprint(0, 0, 0, 0, 0)).refuse_unusable()
    assert caught.value.code == "not_a_file"


def test_file_swapped_for_a_link_after_the_scan_is_not_opened(tmp_path: Path) -> None:
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
    await scan_once(inbox)
    assert [row.name for row in jobs.rows.values()] == ["good.txt"]
    assert not bad.exists()
    assert "not UTF-8" in reason_of(folder, os.fsdecode(b"caf\xe9.txt"))


async def test_link_in_place_of_done_stops_the_inbox(
    folder: Path, inbox: Inbox, jobs: FakeJobs, tmp_path: Path
) -> None:
    (folder / "done").symlink_to(tmp_path)
    drop(folder / "a.txt")
    await scan_once(inbox)
    assert not jobs.rows
    assert "a link" in (inbox.degraded or "")


def test_files_of_one_name_that_leave_at_once_replace_none(folder: Path) -> None:
    outbox = Outbox(folder)
    outbox.prepare()
    files = [folder / f".part-{number}" for number in range(300)]
    for file in files:
        file.write_text(file.name)
    error = InputError("no", code="empty_file")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda file: outbox.to_done(file, "a.txt", "line\n"), files[:150]))
        list(pool.map(lambda file: outbox.to_failed(file, "a.txt", error), files[150:]))
    kept = {path.read_text() for path in (folder / "done").glob("a*.txt")}
    assert kept == {file.name for file in files[:150]}
    assert len(list((folder / "done").glob("*.problems.tsv"))) == 150
    refused = [path for path in (folder / "failed").iterdir() if not path.name.endswith(".reason.txt")]
    assert {path.read_text() for path in refused} == {file.name for file in files[150:]}
    assert all(path.with_name(f"{path.name}.reason.txt").exists() for path in refused)
