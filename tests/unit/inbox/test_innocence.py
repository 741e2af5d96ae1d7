"""One file's trouble is its own, and a passing trouble of the machine is no file's."""

import errno
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from imgdiffd.captions import Entry
from imgdiffd.errors import InputError, StoreError
from imgdiffd.inbox import Inbox, intake, opened
from imgdiffd.inbox.opened import PASSING
from imgdiffd.job import CaptionRecord, JobState
from tests.fakes.jobs import FakeJobs, drop, names, reason_of, scan_once

pytestmark = pytest.mark.anyio


def raising(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a file called bad.txt raises this after one caption."""

    def read(file: BinaryIO, name: str, field: str) -> Iterator[Entry]:
        yield CaptionRecord(f"a dog of {name}", "", 1)
        if name == "bad.txt":
            raise error

    for module in (intake, opened):
        monkeypatch.setattr(module, "read_open", read)


async def body(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.mark.parametrize(
    "error", [ValueError("\ud800\x1b[31m"), OverflowError("int too big"), RecursionError(), KeyError(1)]
)
@pytest.mark.parametrize("size", ["small", "long"])
async def test_whatever_a_reader_raises_costs_its_file(
    error: Exception,
    size: str,
    folder: Path,
    inbox: Inbox,
    jobs: FakeJobs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raising(error, monkeypatch)
    if size == "long":
        monkeypatch.setattr(opened, "SMALL_BYTES", 0)
    drop(folder / "bad.txt")
    drop(folder / "good.txt", "a cat\n")
    await scan_once(inbox)
    assert {row.name: row.state for row in jobs.rows.values()} == {
        "bad.txt": JobState.FAILED,
        "good.txt": JobState.ACTIVE,
    }
    assert type(error).__name__ in reason_of(folder, "bad.txt")
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]
    with pytest.raises(InputError, match=type(error).__name__):
        await inbox.submit("bad.txt", body(b"a cow\n"), None, 0)
    assert (await inbox.submit("fine.txt", body(b"a hen\n"), None, 0)).state is JobState.ACTIVE


async def test_what_the_store_refuses_costs_its_file(
    folder: Path, inbox: Inbox, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> object:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")

    async def refuse_too(*_: object) -> object:
        raise UnicodeError("and its reason neither")

    monkeypatch.setattr(opened, "SMALL_BYTES", 0)
    monkeypatch.setattr(jobs, "add_captions", refuse)
    monkeypatch.setattr(jobs, "fail_job", refuse_too)
    drop(folder / "bad.txt")
    await scan_once(inbox)
    assert "Python int too large" in reason_of(folder, "bad.txt")
    monkeypatch.undo()
    drop(folder / "good.txt", "a cat\n")
    await scan_once(inbox)
    assert jobs.rows[2].state is JobState.ACTIVE
    assert inbox.degraded is None


@pytest.mark.parametrize(
    "error", [*(OSError(number, os.strerror(number)) for number in sorted(PASSING)), MemoryError()]
)
@pytest.mark.parametrize("size", ["small", "long"])
async def test_a_passing_trouble_leaves_the_file_for_later(
    error: Exception,
    size: str,
    folder: Path,
    inbox: Inbox,
    jobs: FakeJobs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as broken:
        raising(error, broken)
        if size == "long":
            broken.setattr(opened, "SMALL_BYTES", 0)
        drop(folder / "bad.txt")
        drop(folder / "good.txt", "a cat\n")
        await scan_once(inbox)
        await scan_once(inbox)
        assert len([record for record in caplog.records if "cannot be taken yet" in record.message]) == 1
        assert names(folder) == ["bad.txt", "done", "failed"]
        assert names(folder / "failed") == []
        assert "'bad.txt' cannot be taken yet" in (inbox.degraded or "")
        with pytest.raises(StoreError, match="send it again"):
            await inbox.submit("bad.txt", body(b"a cow\n"), None, 0)
    await scan_once(inbox)
    assert inbox.degraded is None
    assert names(folder) == ["done", "failed"]
    assert [row.name for row in jobs.living()] == ["good.txt", "bad.txt"]


async def test_no_descriptor_left_to_open_a_file_is_passing(
    folder: Path, inbox: Inbox, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(folder / "a.txt")
    with monkeypatch.context() as broken:

        def refuse(*_: object, **__: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        broken.setattr("imgdiffd.inbox.opened.os.open", refuse)
        await scan_once(inbox)
    assert "Too many open files" in (inbox.degraded or "")
    (folder / "a.txt").unlink()
    await scan_once(inbox)
    assert inbox.degraded is None


async def test_a_file_read_by_another_field_is_no_duplicate(folder: Path, inbox: Inbox, jobs: FakeJobs) -> None:
    await scan_once(inbox)
    content = b'{"caption": "a dog", "title": "a cat"}\n'
    rows = [await inbox.submit("a.jsonl", body(content), None, 0, field) for field in ("", "title", "title")]
    assert [jobs.captions[row.id] for row in rows] == [["a dog"], ["a cat"], []]
    assert [row.duplicate_of for row in rows] == [None, None, 2]
