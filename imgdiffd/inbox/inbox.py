"""The watch folder: which files to take and when, and where they go afterwards.

It owns the folder and its `done` and `failed`; it does not know how a file becomes a job, which is `intake`'s. A scan
is the truth; inotify's hints only make it come early.
"""

import logging
import os
import re
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

from imgdiffd.errors import InputError, StoreError
from imgdiffd.inbox.intake import PARALLEL_FILES, Fingerprint, Intake, Jobs
from imgdiffd.inbox.outbox import Outbox
from imgdiffd.inbox.scan import ScannedFile, look, wait_until_settled
from imgdiffd.inbox.watch import FolderWatch
from imgdiffd.method.profile import Profile
from imgdiffd.settings import Settings
from imgdiffd.store.rows import JobRow

_log = logging.getLogger(__name__)

SCAN_GAP_S = 0.05  # a flood of hints must not become a flood of scans
_SPOOLED = re.compile(r"\.submitted-[0-9a-f]{32}\.part")


def _nothing() -> None:
    pass


class Inbox:
    """Turns files that appear in the folder into jobs; `on_job` is called after each.

    A dot file, `*.tmp`, `*.part` and every folder is left alone. A file is taken once it has rested for `settle_s`, or
    at once where it was renamed into place. It then moves to `done`, or to `failed` with a `.reason.txt` beside it.
    Killed at any point, the daemon takes what is still in the folder anew, and the store knows what it has already.
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
        self._intake = Intake(jobs)
        self._outbox = Outbox(self._folder)
        self._wake = anyio.Event()
        self.use(settings)
        self._folder_problem: str | None = None
        self._store_problem: str | None = None
        self._seen: dict[str, tuple[Fingerprint, float]] = {}  # name -> what it was, and since when
        self._renamed: set[str] = set()  # renamed into place since the last scan
        self._queue: deque[ScannedFile] = deque()
        self._busy: set[str] = set()  # queued or being taken
        self._left: set[str] = set()  # no longer busy since the last look began: it may have seen them before that
        self._workers = 0
        self._leaving: dict[Fingerprint, InputError | None] = {}  # taken or refused, but not moved yet

    def use(self, settings: Settings) -> None:
        """The times of these settings count from now on; the folder stays."""
        self._poll_s = settings.poll_s
        self._settle_s = settings.settle_s
        self._wake.set()

    @property
    def degraded(self) -> str | None:
        """Why nothing can be taken just now; None while all is well."""
        return self._folder_problem or self._store_problem

    async def run(self) -> None:
        """Watch until cancelled."""
        await to_thread.run_sync(self._remove_spooled)
        await self._intake.recall()
        async with anyio.create_task_group() as group:
            await group.start(self._watch)  # before the first scan, so that nothing falls between
            while True:
                self._wake = anyio.Event()  # before the scan, so that what comes during it counts
                pause_s = await self._scan()
                self._start_workers(group)
                await anyio.sleep(SCAN_GAP_S)
                with anyio.move_on_after(pause_s):
                    await self._wake.wait()

    async def scan_once(self) -> None:
        """Look once and take everything that may be taken."""
        async with anyio.create_task_group() as group:
            await self._scan()
            self._start_workers(group)

    async def submit(self, name: str, body: AsyncIterator[bytes], profile: Profile | None, priority: int) -> JobRow:
        """Keep `body` as a file called `name` and take it. Returns its job.

        Raises InputError where it is refused (it is in `failed` then) and StoreError where it cannot be kept.
        """
        if not name or name != Path(name).name or name.startswith(".") or not name.isprintable():
            raise InputError(f"{name!r} is no file name", code="bad_name", hint="give it without folders")
        spooled = self._folder / f".submitted-{uuid.uuid4().hex}.part"
        try:
            await self._spool(spooled, name, body)
            with anyio.CancelScope(shield=True):  # the caller may leave; half a job must not stay
                job = await self._take(spooled, name, profile or self._profile, priority, None)
            return job
        finally:
            spooled.unlink(missing_ok=True)

    async def _spool(self, spooled: Path, name: str, body: AsyncIterator[bytes]) -> None:
        try:
            async with await anyio.open_file(spooled, "xb") as file:
                async for part in body:
                    await file.write(part)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"cannot keep {name} in {self._folder}: {reason}", hint="check the folder and its free space"
            ) from error

    async def _watch(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        say_started: Callable[[], None] = task_status.started
        while True:
            try:
                with FolderWatch(self._folder) as watch:
                    say_started()
                    say_started = _nothing
                    await self._follow(watch, os.stat(self._folder))
            except OSError as error:  # the scans go on, and say it where the folder itself is the trouble
                _log.debug("inbox: no hints from %s: %s", self._folder, error)
            say_started()
            say_started = _nothing
            await anyio.sleep(self._poll_s)

    async def _follow(self, watch: FolderWatch, identity: os.stat_result) -> None:
        """Pass hints on until the folder is gone or another lies in its place."""
        while os.path.samestat(identity, os.stat(self._folder)):
            with anyio.move_on_after(self._poll_s):
                hint = await watch.wait_hint()
                self._renamed |= hint.renamed
                self._wake.set()
                if hint.gone:
                    return

    async def _scan(self) -> float:
        """Queue what may be taken; returns the seconds until it is worth looking again."""
        renamed, self._renamed = self._renamed, set()
        self._left = set()
        try:
            scan = await to_thread.run_sync(look, self._folder)
            await to_thread.run_sync(self._outbox.prepare)
        except OSError as error:
            self._say(f"{error.filename or self._folder}: {error.strerror}")
            self._seen.clear()
            return self._poll_s
        self._say(None)
        if not scan:
            self._store_problem = None
        pause_s = self._poll_s
        now_s, wall_s = self._clock(), time.time()
        seen = {}
        for scanned in scan:
            if scanned.name in self._busy or scanned.name in self._left:
                continue
            known = self._seen.get(scanned.name)
            since_s = known[1] if known and known[0] == scanned.fingerprint else now_s
            seen[scanned.name] = (scanned.fingerprint, since_s)
            wait_s = wait_until_settled(scanned, now_s - since_s, wall_s, self._settle_s)
            if wait_s <= 0 or scanned.name in renamed:
                self._busy.add(scanned.name)
                self._queue.append(scanned)
            else:
                pause_s = min(pause_s, wait_s)
        self._seen = seen
        return pause_s

    def _say(self, problem: str | None) -> None:
        if problem and problem != self._folder_problem:
            _log.warning("inbox: %s; nothing is taken until that is mended", problem)
        elif self._folder_problem and not problem:
            _log.info("inbox: %s is well again", self._folder)
        self._folder_problem = problem

    def _start_workers(self, group: TaskGroup) -> None:
        for _ in range(min(len(self._queue), PARALLEL_FILES - self._workers)):
            self._workers += 1
            group.start_soon(self._work_off)

    async def _work_off(self) -> None:
        try:
            while self._queue:
                scanned = self._queue.popleft()
                try:
                    await self._take_sighting(scanned)
                finally:
                    self._busy.discard(scanned.name)
                    self._left.add(scanned.name)
        finally:
            self._workers -= 1

    async def _take_sighting(self, scanned: ScannedFile) -> None:
        try:
            path = self._folder / scanned.name
            if scanned.fingerprint in self._leaving:
                await self._leave(path, scanned.name, self._leaving[scanned.fingerprint], scanned)
            else:
                await self._take(path, scanned.name, self._profile, 0, scanned)
            self._store_problem = None
        except InputError as error:
            _log.warning("inbox: %r refused: %s", scanned.name, error)
        except (StoreError, OSError) as error:  # the file stays where it is, and the next scan tries again
            if str(error) != self._store_problem:
                _log.warning("inbox: %r cannot be taken yet: %s", scanned.name, error)
            self._store_problem = str(error)

    async def _take(
        self, path: Path, name: str, profile: Profile, priority: int, scanned: ScannedFile | None
    ) -> JobRow:
        expected = None
        try:
            if scanned is not None:
                scanned.refuse()
                expected = scanned.fingerprint
            job = await self._intake.take_file(path, name, profile, priority, expected)
        except InputError as error:
            if error.code != "changed":
                await self._leave(path, name, error, scanned)
            raise
        _log.info("inbox: %r is job %d: %s, %d captions", name, job.id, job.state, job.total)
        self._on_job()
        await self._leave(path, name, None, scanned)
        return job

    async def _leave(self, path: Path, name: str, error: InputError | None, scanned: ScannedFile | None) -> None:
        if scanned is not None:
            self._leaving[scanned.fingerprint] = error
        if error is None:
            await to_thread.run_sync(self._outbox.to_done, path, name)
        else:
            await to_thread.run_sync(self._outbox.to_failed, path, name, error)
        if scanned is not None:
            del self._leaving[scanned.fingerprint]

    def _remove_spooled(self) -> None:
        try:
            leftovers = [path for path in self._folder.iterdir() if _SPOOLED.fullmatch(path.name)]
        except OSError as error:  # the first scan says so
            _log.debug("inbox: %s", error)
            return
        for path in leftovers:
            path.unlink(missing_ok=True)
