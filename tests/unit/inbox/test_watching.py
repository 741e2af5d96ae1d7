"""The watch reports files renamed into place, and survives whatever happens to its folder."""

import os
from pathlib import Path

import anyio
import pytest

from imgdiffd.inbox.watch import FolderWatch
from tests.fakes.jobs import FakeJobs, drop, make_inbox, names, wait_until

pytestmark = pytest.mark.anyio


# The running watch


async def test_a_file_renamed_into_place_is_taken_at_once(folder: Path, jobs: FakeJobs) -> None:
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


async def test_written_file_is_not_reported_as_renamed(folder: Path) -> None:
    with FolderWatch(folder) as watch:
        (folder / "a.txt").write_text("a dog\n")
        assert not (await watch.wait_hint()).renamed
