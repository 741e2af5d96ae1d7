"""Turns one caption file into one job: all of it, or none."""

import logging
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import anyio
from anyio import CapacityLimiter, to_thread

from imgdiffd import heap
from imgdiffd.captions import read_open
from imgdiffd.errors import ImgdiffdError, InputError, StoreError, first_line
from imgdiffd.inbox.opened import Fingerprint, OpenedFile, costs_only_its_file, next_chunk, open_hashed
from imgdiffd.job import CaptionProblem, CaptionRecord, JobState
from imgdiffd.method.profile import Profile
from imgdiffd.store.rows import JobRow, Whole

_log = logging.getLogger(__name__)

PARALLEL_FILES = 64  # so that many small files share the store's commits
LONG_FILES = 8  # of these, since each holds a chunk in memory
THREADS = 4  # reading a small file takes less time than waking more threads


class Jobs(Protocol):
    """What intake needs of the store."""

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
        """A READING job, or one that is DONE with `duplicate_of` set; with `whole`, one that is already read.

        One that has taken the file since `changed_at` is returned as it is.
        """

    async def add_captions(
        self, job: int, records: Sequence[CaptionRecord], problems: Sequence[CaptionProblem] = ()
    ) -> tuple[int, int]:
        """Insert a chunk and return how many captions were accepted, and how many were duplicates."""

    async def finish_reading(self, job: int) -> JobRow:
        """The job, READING until now, once its file was read to the end."""

    async def fail_job(self, job: int, error: str) -> JobRow:
        """The job, READING until now, as FAILED with this error."""

    async def problems(self, job: int, limit: int) -> Sequence[CaptionProblem]:
        """The first records of the job's file that could not be read."""


class Intake:
    """Takes files one by one or several at once; files with the same content wait for one another."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._limiter = CapacityLimiter(THREADS)
        self._long = CapacityLimiter(LONG_FILES)
        self._reading: dict[str, anyio.Event] = {}  # by content
        self._to_fail: dict[int, str] = {}  # jobs that the store could not mark FAILED yet, and their error

    async def take_file(
        self,
        path: Path,
        name: str,
        profile: Profile,
        priority: int = 0,
        expected: Fingerprint | None = None,
        field: str = "",
    ) -> JobRow:
        """Read the file into a job and return it, ACTIVE or DONE; `name` and `field` say how it is read.

        Raises InputError where the file is refused, its job, if there is one, FAILED; with the code `changed` where it
        is not `expected` any more or changed meanwhile, and must be taken again. Raises StoreError where the database
        takes nothing, OSError where the machine lacks something for now: the file can be taken again later. Cancelled,
        it leaves a READING job, which a restart drops.
        """
        await self._fail_overdue()
        with costs_only_its_file():
            opened = await to_thread.run_sync(open_hashed, path, name, field, expected, limiter=self._limiter)
            with opened.file:
                return await self._take_opened(opened, path, name, profile, priority, field)

    async def _take_opened(
        self, opened: OpenedFile, path: Path, name: str, profile: Profile, priority: int, field: str
    ) -> JobRow:
        digest, whole = opened.digest, opened.whole
        while digest in self._reading:
            await self._reading[digest].wait()
        self._reading[digest] = anyio.Event()
        try:
            source = os.fsencode(path).decode("utf-8", "backslashreplace")  # the folder's name may not be UTF-8
            # A file that could not be moved has its job; one put in its place would have changed later.
            file, changed_at = (name, source, digest, profile, priority), opened.before.changed_ns / 1e9
            if whole is not None:
                everything = (whole.records, whole.problems)
                return await self._jobs.add_job(*file, everything, changed_at)
            async with self._long:
                job = await self._jobs.add_job(*file, None, changed_at)
                return await self._read(job, opened, name, field) if job.state is JobState.READING else job
        finally:
            self._reading.pop(digest).set()

    async def _read(self, job: JobRow, opened: OpenedFile, name: str, field: str) -> JobRow:
        try:
            with costs_only_its_file():
                with closing(read_open(opened.file, name, field)) as stream:
                    last = False
                    while not last:
                        chunk = await to_thread.run_sync(next_chunk, stream, limiter=self._limiter)
                        await self._jobs.add_captions(job.id, chunk.records, chunk.problems)
                        last = chunk.last
                opened.refuse_changed()
                return await self._jobs.finish_reading(job.id)
        except (ImgdiffdError, OSError) as error:
            if not (isinstance(error, InputError) and error.code == "wrong_job_state"):  # a person cancelled it
                self._to_fail[job.id] = str(error) if isinstance(error, ImgdiffdError) else first_line(error)
                await self._fail_overdue()
            raise
        finally:
            heap.give_back()

    async def _fail_overdue(self) -> None:
        # The same file, taken again, would count as a duplicate of a job that stays READING and has no captions.
        while self._to_fail:
            job, error = self._to_fail.popitem()
            try:
                await self._jobs.fail_job(job, error)
            except InputError as refusal:
                if refusal.code != "wrong_job_state":  # else a person cancelled it just now
                    _log.error("inbox: job %d cannot be marked failed: %s", job, refusal)
            except (StoreError, anyio.get_cancelled_exc_class()):
                self._to_fail[job] = error
                raise
            except Exception:  # of this job alone: the next file must not pay for it
                _log.exception("inbox: job %d cannot be marked failed; a restart drops it", job)
