"""Files that come over the socket."""

# ruff: noqa: ASYNC240 - these tests look at a folder between awaits; nothing else shares their loop
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from imgdiffd.errors import InputError, StoreError
from imgdiffd.inbox import Inbox
from imgdiffd.inbox.watch import FolderWatch
from imgdiffd.job import JobState
from imgdiffd.method.profile import load_profile
from tests.fakes.jobs import FakeJobs, drop, make_inbox, names, scan_once, wait_until

pytestmark = pytest.mark.anyio


# Submitting


async def body(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_submitted_body_becomes_a_job_with_its_options(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    await scan_once(inbox)
    row = await inbox.submit("a.txt", body(b"a d", b"og\n"), load_profile("paper"), 7)
    assert (row.name, row.profile, row.priority, row.state) == ("a.txt", "paper", 7, JobState.ACTIVE)
    assert jobs.captions[row.id] == ["a dog"]
    assert names(folder) == ["done", "failed"]
    assert names(folder / "done") == ["a.txt"]


async def test_upload_that_began_before_the_inbox_is_not_a_leftover(folder: Path, inbox: Inbox) -> None:
    begun, scanned = anyio.Event(), anyio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a d"
        begun.set()
        await scanned.wait()
        yield b"og\n"

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await begun.wait()
            group.start_soon(inbox.run)
            while "done" not in names(folder):  # made by the first scan, which comes after the leftovers
                await anyio.sleep(0.01)
            scanned.set()

        group.start_soon(run)
        row = await inbox.submit("a.txt", slow(), None, 0)
        assert row.state is JobState.ACTIVE
        group.cancel_scope.cancel()


async def test_submitted_file_that_is_useless_is_refused_and_kept(folder: Path, inbox: Inbox) -> None:
    await scan_once(inbox)
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


async def test_a_field_that_no_column_can_have_is_refused(folder: Path, inbox: Inbox) -> None:
    with pytest.raises(InputError) as caught:
        await inbox.submit("a.parquet", body(b"PAR1"), None, 0, "a\0b")
    assert caught.value.code == "bad_field"
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


async def test_an_upload_cut_off_by_a_kill_is_removed_at_start(folder: Path, jobs: FakeJobs) -> None:
    drop(folder / f".submitted-{'0' * 32}.part")
    drop(folder / ".other.part")
    with FolderWatch(folder) as watch:
        async with anyio.create_task_group() as group:
            group.start_soon(make_inbox(folder, jobs).run)
            await wait_until((folder / "failed").is_dir, watch)
            group.cancel_scope.cancel()
    assert names(folder) == [".other.part", "done", "failed"]
