"""Shared by the inbox tests: an in-memory store of jobs, and files as people drop them."""

import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

from imgdiffd.errors import InputError, StoreError
from imgdiffd.inbox import Inbox
from imgdiffd.inbox.opened import Fingerprint
from imgdiffd.inbox.scan import ScannedFile
from imgdiffd.inbox.watch import FolderWatch
from imgdiffd.job import CaptionProblem, CaptionRecord, JobState
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.settings import Settings
from imgdiffd.store.rows import JobRow, Whole

LONG_AGO_S = 1_000_000_000
PROFILE = load_profile("default")


class FakeJobs:
    """An in-memory store with the real rules for duplicates and states; `broken` makes every write fail."""

    def __init__(self) -> None:
        self.rows: dict[int, JobRow] = {}
        self.captions: dict[int, list[str]] = {}
        self.unread: dict[int, list[CaptionProblem]] = {}
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
        values["problems"] = len(self.unread[job])
        self.rows[job] = JobRow(**values)
        return self.rows[job]

    async def add_job(
        self,
        name: str,
        source: str,
        sha256: str,
        profile: Profile,
        priority: int = 0,
        whole: Whole | None = None,
        changed_at: float | None = None,
    ) -> JobRow:
        self._check()
        for row in self.rows.values():
            taken = row.state not in (JobState.READING, JobState.FAILED)
            if taken and (row.source, row.sha256) == (source, sha256) and row.created_at >= (changed_at or 0):
                return row
        same = [row for row in self.living() if row.sha256 == sha256 and row.profile == profile.name]
        state = JobState.DONE if same else JobState.READING
        job = len(self.rows) + 1
        self.rows[job] = JobRow(
            id=job, name=name, source=source, sha256=sha256, profile=profile.name, group="1", priority=priority,
            state=state, created_at=time.time(), finished_at=None, total=0, duplicates=0, problems=0,
            duplicate_of=same[0].id if same else None, error="",
        )  # fmt: skip
        self.captions[job] = []
        self.unread[job] = []
        if same or whole is None:
            return self.rows[job]
        self.changes_of_whole_files += 1
        self.captions[job] += [record.text for record in whole[0]]
        self.unread[job] += whole[1]
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
        self.unread[job] += problems
        self.after_chunk()
        return len(records), 0

    async def problems(self, job: int, limit: int) -> list[CaptionProblem]:
        return self.unread[job][:limit]

    async def finish_reading(self, job: int) -> JobRow:
        self._check()
        return self.change(job, JobState.ACTIVE)

    async def fail_job(self, job: int, error: str) -> JobRow:
        self._check()
        self.captions[job] = []
        return self.change(job, JobState.FAILED, error)


def make_inbox(folder: Path, jobs: FakeJobs, **over: object) -> Inbox:
    return Inbox(Settings.model_validate({"state_folder": folder.parent, **over}), jobs, PROFILE)


def drop(path: Path, content: str | bytes = "a dog\na cat\n") -> Path:
    """Write a file whose last modification is long ago."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def reason_of(folder: Path, name: str) -> str:
    return (folder / "failed" / f"{name}.reason.txt").read_text()


def scanned(modified_s: float) -> ScannedFile:
    return ScannedFile("a.txt", stat.S_IFREG, Fingerprint(1, 2, 3, int(modified_s * 1e9), 5))


async def scan_once(inbox: Inbox) -> None:
    """Scan once, and wait until every file that may be taken has been."""
    async with anyio.create_task_group() as group:
        await inbox.scan(group)


async def wait_until(condition: Callable[[], bool], watch: FolderWatch) -> None:
    with anyio.fail_after(60):  # only a hang takes this long
        while not condition():
            await watch.wait_hint()


async def watch_until(inbox: Inbox, folder: Path, condition: Callable[[], bool]) -> None:
    """Run the inbox until `condition` holds, which is checked whenever `done` changes."""
    (folder / "done").mkdir()
    with FolderWatch(folder / "done") as watch:
        async with anyio.create_task_group() as group:
            group.start_soon(inbox.run)
            await wait_until(condition, watch)
            group.cancel_scope.cancel()
