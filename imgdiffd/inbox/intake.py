"""One caption file into one job: hashed, read in chunks, and never taken half.

It owns the order of the steps and what happens when one fails; it does not know folders or where files go afterwards.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Protocol

import anyio
from anyio import CapacityLimiter, to_thread

from imgdiffd.captions import CaptionProblem, CaptionRecord, Entry, read_open
from imgdiffd.errors import ImgdiffdError, InputError
from imgdiffd.job import JobState
from imgdiffd.method.profile import Profile
from imgdiffd.store.rows import JobRow, Whole

PARALLEL_FILES = 64  # so that many small files share the store's commits
LONG_FILES = 8  # of these, since each holds a chunk in memory
THREADS = 4  # reading a small file takes less than waking more of them
CHUNK_RECORDS = 1000
CHUNK_CHARACTERS = 4_000_000
TAKEN_STATES = frozenset(JobState) - {JobState.READING, JobState.FAILED}
SMALL_BYTES = 1 << 16  # up to this, a file of one chunk is read at once and costs one change of the store

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class Jobs(Protocol):
    """What intake needs of the store."""

    async def add_job(
        self, name: str, source: str, sha256: str, profile: Profile, priority: int = 0, whole: Whole | None = None
    ) -> JobRow:
        """A READING job, or one that is DONE with `duplicate_of` set; with `whole`, one that was read to its end."""

    async def jobs(self) -> list[JobRow]:
        """The newest jobs."""

    async def add_captions(
        self, job: int, records: Sequence[CaptionRecord], problems: Sequence[CaptionProblem] = ()
    ) -> tuple[int, int]:
        """Insert a chunk: how many were accepted, how many were duplicates."""

    async def finish_reading(self, job: int) -> JobRow:
        """The whole file is in."""

    async def fail_job(self, job: int, error: str) -> JobRow:
        """The file is of no use."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Changes whenever a file's content does; the change time cannot be set back as the modification time can."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Fingerprint":
        """The fingerprint in a stat result."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def refuse_kind(mode: int) -> None:
    """Raises InputError for anything but a regular file."""
    kind = _KINDS.get(stat.S_IFMT(mode))
    if not stat.S_ISREG(mode):
        raise InputError(f"{kind or 'not a regular file'}", code="not_a_file", hint="drop the file itself")


def open_regular(path: Path) -> BufferedReader:
    """`path` opened for reading, without following a link or waiting on a pipe. Raises InputError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_kind(stat.S_IFLNK)
        if error.errno == errno.ENOENT:
            raise _changed() from error
        raise InputError(f"cannot be opened: {error.strerror}", code="unreadable", hint="check its mode") from error
    file = open(descriptor, "rb")  # noqa: SIM115 - the caller closes it
    try:
        refuse_kind(os.fstat(descriptor).st_mode)
    except InputError:
        file.close()
        raise
    return file


@dataclass(frozen=True, slots=True)
class _Chunk:
    records: tuple[CaptionRecord, ...]
    problems: tuple[CaptionProblem, ...]
    last: bool


def _next_chunk(stream: Iterator[Entry]) -> _Chunk:
    records: list[CaptionRecord] = []
    problems: list[CaptionProblem] = []
    characters = 0
    for entry in islice(stream, CHUNK_RECORDS):
        if isinstance(entry, CaptionRecord):
            records.append(entry)
            characters += len(entry.text)
        else:
            problems.append(entry)
        if characters >= CHUNK_CHARACTERS:
            return _Chunk(tuple(records), tuple(problems), False)
    return _Chunk(tuple(records), tuple(problems), len(records) + len(problems) < CHUNK_RECORDS)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that was hashed. `whole` is all that is in it, where that is one chunk without a fault."""

    file: BufferedReader
    before: Fingerprint
    digest: str
    whole: _Chunk | None

    def refuse_changed(self) -> None:
        """Raises InputError where it is not what it was when it was opened."""
        if Fingerprint.of(os.fstat(self.file.fileno())) != self.before:
            raise _changed()


def _open(path: Path, name: str, expected: Fingerprint | None) -> _Opened:
    file = open_regular(path)
    try:
        before = Fingerprint.of(os.fstat(file.fileno()))
        if expected not in (None, before):
            raise _changed()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole = _whole(file, name) if before.size <= SMALL_BYTES else None
        opened = _Opened(file, before, digest, whole)
        opened.refuse_changed()
    except OSError as error:
        file.close()
        raise InputError(f"cannot be read: {error.strerror}", code="unreadable") from error
    except BaseException:
        file.close()
        raise
    return opened


def _whole(file: BufferedReader, name: str) -> _Chunk | None:
    try:
        chunk = _next_chunk(read_open(file, name))
    except InputError:  # it is told when the file has a job, which fails with it
        return None
    return chunk if chunk.last else None


class Intake:
    """Takes files one by one or several at once; files with the same content wait for one another."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._limiter = CapacityLimiter(THREADS)
        self._long = CapacityLimiter(LONG_FILES)
        self._reading: dict[str, anyio.Event] = {}  # by content
        self._unended: dict[int, str] = {}  # jobs that could not even be failed, and their error
        self._earlier: dict[tuple[str, str], JobRow] = {}  # by path and content

    async def recall(self) -> None:
        """Look up what an earlier daemon took, so that a file which it could not move any more has its job already."""
        rows = await self._jobs.jobs()
        self._earlier = {(row.source, row.sha256): row for row in rows if row.state in TAKEN_STATES}

    async def take_file(
        self, path: Path, name: str, profile: Profile, priority: int = 0, expected: Fingerprint | None = None
    ) -> JobRow:
        """Read the file into a job and return it, ACTIVE or DONE; `name` tells the format.

        Raises InputError where the file is refused, its job, if there is one, FAILED; with the code `changed` where it
        is not `expected` any more or changed meanwhile, and must be taken anew. Raises StoreError where the database
        takes nothing: the file can be taken again later. Cancelled, it leaves a READING job, which a restart drops.
        """
        await self._end_the_unended()
        opened = await to_thread.run_sync(_open, path, name, expected, limiter=self._limiter)
        digest, whole = opened.digest, opened.whole
        with opened.file:
            earlier = self._earlier.get((str(path), digest))
            if earlier is not None and opened.before.changed_ns <= earlier.created_at * 1e9:
                return earlier  # the very file: one that was put there since then has changed since then
            while digest in self._reading:
                await self._reading[digest].wait()
            self._reading[digest] = anyio.Event()
            try:
                if whole is not None:
                    everything = (whole.records, whole.problems)
                    return await self._jobs.add_job(name, str(path), digest, profile, priority, everything)
                async with self._long:
                    job = await self._jobs.add_job(name, str(path), digest, profile, priority)
                    return job if job.duplicate_of is not None else await self._read(job, opened, name)
            finally:
                self._reading.pop(digest).set()

    async def _read(self, job: JobRow, opened: _Opened, name: str) -> JobRow:
        try:
            stream = read_open(opened.file, name)
            last = False
            while not last:
                chunk = await self._chunk(stream)
                await self._jobs.add_captions(job.id, chunk.records, chunk.problems)
                last = chunk.last
            opened.refuse_changed()
            return await self._jobs.finish_reading(job.id)
        except ImgdiffdError as error:
            if not (isinstance(error, InputError) and error.code == "wrong_job_state"):  # a person cancelled it
                self._unended[job.id] = str(error)
                await self._end_the_unended()
            raise

    async def _chunk(self, stream: Iterator[Entry]) -> _Chunk:
        try:
            return await to_thread.run_sync(_next_chunk, stream, limiter=self._limiter)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", code="unreadable") from error

    async def _end_the_unended(self) -> None:
        # A job left READING would make the same file, taken again, a duplicate of something that is not there.
        while self._unended:
            job, error = self._unended.popitem()
            try:
                await self._jobs.fail_job(job, error)
            except InputError as ended:
                if ended.code != "wrong_job_state":  # else a person cancelled it just now
                    raise
            except BaseException:
                self._unended[job] = error
                raise


def _changed() -> InputError:
    return InputError("changed while it was read", code="changed", hint="it is taken again once it rests")
