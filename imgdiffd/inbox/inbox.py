"""The watch folder at work: which files are taken, when, and where they go afterwards.

Scans alone decide what is taken; hints from inotify only make the next scan come early.
"""

import contextlib
import logging
import math
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

from imgdiffd.errors import InputError, StoreError, counted, first_line, is_visible, visible
from imgdiffd.inbox import spool
from imgdiffd.inbox.intake import PARALLEL_FILES, Intake, Jobs
from imgdiffd.inbox.opened import UNEXPECTED, Fingerprint
from imgdiffd.inbox.outbox import Outbox, problem_table
from imgdiffd.inbox.scan import ScannedFile, scan_folder, seconds_until_settled
from imgdiffd.inbox.watch import FolderWatch
from imgdiffd.method.profile import Profile
from imgdiffd.settings import Settings
from imgdiffd.store.rows import JobRow

_log = logging.getLogger(__name__)

LISTED_PROBLEMS = 10_000  # beside a file in `done`; the store has them all
SCAN_GAP_S = 0.05  # a flood of hints must not become a flood of scans
CLOCK_JUMP_S = 1.0  # between two scans; corrections of a clock that runs right are far smaller


def _nothing() -> None:
    pass


def _passing_reason(error: OSError) -> str:
    return error.strerror or first_line(error)


class Inbox:
    """Turns files that appear in the folder into jobs; `on_job` is called after each.

    Dot files, `*.tmp` and `*.part` are ignored. A file is taken once it has not changed for `settle_s`, or at
    once where it was renamed into place. It then moves to `done`, or to `failed` with a `.reason.txt` beside it. A
    daemon killed at any point takes what is still in the folder again; the store knows which of it is already there.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        profile: Profile,
        on_job: Callable[[], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = settings.inbox_folder
        self._profile = profile
        self._on_job = on_job
        self._clock = clock
        self._jobs = jobs
        self._intake = Intake(jobs)
        self._outbox = Outbox(self._folder)
        self._uploads: set[Path] = set()  # being received over the socket
        self._wake = anyio.Event()
        self.use(settings)
        self._folder_problem: str | None = None
        self._waiting: dict[str, str] = {}  # name -> why it cannot be taken yet
        self._said: set[str] = set()  # those reasons, each of which is logged once
        self._wall_ahead_s: float | None = None  # by how much the wall clock was ahead of our own at the last scan
        self._jumped_s = -math.inf  # when the wall clock jumped, by our own
        self._seen: dict[str, tuple[Fingerprint, float]] = {}  # name -> what it was, and since when
        self._renamed: set[str] = set()  # renamed into place since the last scan
        self._queue: deque[ScannedFile] = deque()
        self._busy: set[str] = set()  # queued or being taken
        self._finished: set[str] = set()  # since the running scan began, which may still have seen them
        self._workers = 0
        self._to_move: dict[Fingerprint, Callable[[], None]] = {}  # taken or refused, but still in the folder

    def use(self, settings: Settings) -> None:
        """Use the times of these settings from now on; the folder stays."""
        self._poll_s = settings.poll_s
        self._settle_s = settings.settle_s
        self._wake.set()

    @property
    def degraded(self) -> str | None:
        """Why no file can be taken at the moment; None where nothing is wrong."""
        if self._folder_problem or not self._waiting:
            return self._folder_problem
        name, reason = next(iter(self._waiting.items()))
        more = f" (and {len(self._waiting) - 1} more files)" if len(self._waiting) > 1 else ""
        return f"{name!r} cannot be taken yet: {reason}{more}"

    async def run(self) -> None:
        """Watch the folder until cancelled."""
        await to_thread.run_sync(spool.remove_leftovers, self._folder, self._uploads)
        async with anyio.create_task_group() as group:
            await group.start(self._watch)  # before the first scan, so that no change falls between the two
            while True:
                self._wake = anyio.Event()  # before the scan, so that changes during it are not missed
                pause_s = await self.scan(group)
                await anyio.sleep(SCAN_GAP_S)
                with anyio.move_on_after(pause_s):
                    await self._wake.wait()

    async def scan(self, group: TaskGroup) -> float:
        """Scan once and start taking, in `group`, what may be taken; returns the seconds until the next scan."""
        pause_s = await self._queue_settled()
        for _ in range(min(len(self._queue), PARALLEL_FILES - self._workers)):
            self._workers += 1
            group.start_soon(self._take_queued)
        return pause_s

    async def submit(
        self, name: str, body: AsyncIterator[bytes], profile: Profile | None, priority: int, field: str = ""
    ) -> JobRow:
        """Keep `body` as a file called `name`, take it and return its job; `field` names the captions' key or column.

        Raises InputError where it is refused (it is in `failed` then) and StoreError where it cannot be kept or taken
        now.
        """
        if not is_visible(name) or name != Path(name).name or name.startswith("."):
            hint = "give a visible, printable name without folders"
            raise InputError(f"'{visible(name)}' cannot be a caption file's name", code="bad_name", hint=hint)
        if field and not is_visible(field):
            raise InputError(
                f"'{visible(field)}' cannot be a field's name", code="bad_field", hint="give a printable name"
            )
        path = spool.new_path(self._folder)
        self._uploads.add(path)
        try:
            await spool.write(path, name, body)
            with anyio.CancelScope(shield=True):  # the caller may leave; half a job must not stay
                job = await self._take(path, name, profile or self._profile, priority, None, field)
            return job
        except OSError as error:
            reason = f"{name} cannot be taken now: {_passing_reason(error)}"
            raise StoreError(reason, hint="send it again in a while") from error
        finally:
            with contextlib.suppress(OSError):  # the next start removes it
                path.unlink(missing_ok=True)
            self._uploads.discard(path)

    async def _watch(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        say_started: Callable[[], None] = task_status.started
        while True:
            try:
                with FolderWatch(self._folder) as watch:
                    say_started()
                    say_started = _nothing
                    await self._follow(watch, os.stat(self._folder))
            except OSError as error:  # scans go on, and report it where the folder itself is the problem
                _log.debug("inbox: no hints from %s: %s", self._folder, error)
            say_started()
            say_started = _nothing
            await anyio.sleep(self._poll_s)

    async def _follow(self, watch: FolderWatch, identity: os.stat_result) -> None:
        """Pass hints on until the folder is gone or another has taken its place."""
        while os.path.samestat(identity, os.stat(self._folder)):
            with anyio.move_on_after(self._poll_s):
                hint = await watch.wait_hint()
                self._renamed |= hint.renamed
                self._wake.set()
                if hint.gone:
                    return

    async def _queue_settled(self) -> float:
        """Queue what may be taken; returns the seconds until the next scan."""
        renamed, self._renamed = self._renamed, set()
        self._finished = set()
        try:
            files = await to_thread.run_sync(scan_folder, self._folder)
            await to_thread.run_sync(self._outbox.prepare)
        except OSError as error:
            self._report_folder(f"{error.filename or self._folder}: {error.strerror}")
            self._seen.clear()
            return self._poll_s
        self._report_folder(None)
        there = {file.name for file in files}
        self._waiting = {name: reason for name, reason in self._waiting.items() if name in there}
        self._said &= set(self._waiting.values())
        pause_s = self._poll_s
        now_s, wall_s = self._clock(), time.time()
        self._note_jump(now_s, wall_s)
        seen = {}
        for file in files:
            if file.name in self._busy or file.name in self._finished:
                continue
            known = self._seen.get(file.name)
            since_s = known[1] if known and known[0] == file.fingerprint else now_s
            seen[file.name] = (file.fingerprint, since_s)
            wait_s = seconds_until_settled(file, now_s - since_s, wall_s, self._settle_s, now_s - self._jumped_s)
            if wait_s <= 0 or file.name in renamed:
                self._busy.add(file.name)
                self._queue.append(file)
            else:
                pause_s = min(pause_s, wait_s)
        self._seen = seen
        return pause_s

    def _note_jump(self, now_s: float, wall_s: float) -> None:
        ahead_s = wall_s - now_s
        if self._wall_ahead_s is not None and abs(ahead_s - self._wall_ahead_s) > CLOCK_JUMP_S:
            self._jumped_s = now_s
        self._wall_ahead_s = ahead_s

    def _report_folder(self, problem: str | None) -> None:
        if problem and problem != self._folder_problem:
            _log.warning("inbox: %s; no file is taken until this is fixed", problem)
        elif self._folder_problem and not problem:
            _log.info("inbox: %s is available again", self._folder)
        self._folder_problem = problem

    async def _take_queued(self) -> None:
        try:
            while self._queue:
                file = self._queue.popleft()
                try:
                    await self._take_scanned(file)
                finally:
                    self._busy.discard(file.name)
                    self._finished.add(file.name)
        finally:
            self._workers -= 1

    async def _take_scanned(self, file: ScannedFile) -> None:
        try:
            path = self._folder / file.name
            if file.fingerprint in self._to_move:
                await self._move_out(self._to_move[file.fingerprint], file)
            else:
                await self._take(path, file.name, self._profile, 0, file)
        except InputError as error:
            _log.warning("inbox: %r refused: %s", file.name, error)
        except (StoreError, OSError) as error:  # the file stays where it is, and the next scan tries again
            reason = str(error) if isinstance(error, StoreError) else _passing_reason(error)
            if reason not in self._said:
                _log.warning("inbox: %r cannot be taken yet: %s", file.name, reason)
            self._said.add(reason)
            self._waiting[file.name] = reason
            return
        self._waiting.pop(file.name, None)

    async def _take(
        self, path: Path, name: str, profile: Profile, priority: int, file: ScannedFile | None, field: str = ""
    ) -> JobRow:
        read = file.fingerprint if file is not None else None
        try:
            if file is not None:
                file.refuse_unusable()
            job = await self._intake.take_file(path, name, profile, priority, read, field)
        except InputError as error:
            if error.code == UNEXPECTED:
                _log.error("inbox: %r: reading it failed in a way that was not foreseen", name, exc_info=error)
            if error.code != "changed":
                await self._move_out(partial(self._outbox.to_failed, path, name, error, read), file)
            raise
        _log.info("inbox: %r is job %d: %s, %s", name, job.id, job.state, counted(job.total, "caption"))
        self._on_job()
        table = await self._problem_table(job)
        await self._move_out(partial(self._outbox.to_done, path, name, table, read), file)
        return job

    async def _problem_table(self, job: JobRow) -> str:
        if not job.problems:
            return ""
        try:
            problems = await self._jobs.problems(job.id, LISTED_PROBLEMS)
        except StoreError as error:  # the file has its job and must not be taken again
            _log.warning("inbox: the problems of job %d are not written beside its file: %s", job.id, error)
            return ""
        return problem_table(problems, job.problems, job.id)

    async def _move_out(self, move: Callable[[], None], file: ScannedFile | None) -> None:
        if file is not None:
            self._to_move[file.fingerprint] = move
        await to_thread.run_sync(move)
        if file is not None:
            del self._to_move[file.fingerprint]
