"""Deletes jobs with their rows and images: those that a person names, and those that have become old."""

import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
from anyio import to_thread

from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.errors import InputError, StoreError, unknown_job
from imgdiffd.inbox.outbox import Outbox
from imgdiffd.job import TERMINAL_JOB_STATES
from imgdiffd.settings import Settings
from imgdiffd.status import DeletedJob
from imgdiffd.store import JobRow, Store
from imgdiffd.store.damage import refuse_lost

T = TypeVar("T")
_log = logging.getLogger(__name__)

DAY_S = 86400.0
EVERY_S = 600.0  # between two looks for what has become old


class Holder(Protocol):
    """Whoever holds items for the devices."""

    @property
    def held(self) -> Collection[int]:
        """The items."""

    def forget(self, items: Collection[int], /) -> None:
        """Hold these no more."""


class FullDisk(Protocol):
    """Whoever says what becomes of a change for which a disk has no room."""

    async def retry_while_full(self, change: Callable[[], Awaitable[T]], /) -> T:
        """Try the change again while the disk is full."""


class _Nobody:
    """Where no daemon runs: nothing is held, and a full disk is an error."""

    held: Collection[int] = ()

    def forget(self, items: Collection[int], /) -> None:
        pass

    async def retry_while_full(self, change: Callable[[], Awaitable[T]], /) -> T:
        return await change()


class Pruning:
    """Deletes what is marked in the database, so that a daemon that is killed midway finishes at its next start.

    Rows go first, in chunks between which other work is done, then the images that no row names any more, then the
    room in the database.
    """

    def __init__(self, store: Store, disk: FullDisk, cleanup: Cleanup, scheduler: Holder, settings: Settings) -> None:
        self._store = store
        self._disk = disk
        self._cleanup = cleanup
        self._scheduler = scheduler
        self._settings = settings
        self._outbox = Outbox(settings.inbox_folder)
        self._woken = anyio.Event()
        self._done = anyio.Condition()

    def use(self, settings: Settings) -> None:
        """Keep what these settings say from now on."""
        self._settings = settings
        self._woken.set()

    async def delete(self, jobs: Sequence[int], *, dry_run: bool) -> tuple[DeletedJob, ...]:
        """Delete these jobs, all or none; returns once their rows are gone. Raises InputError if one has not ended.

        With `dry_run`, it only says what would be deleted.
        """
        told = await self._mark(jobs, dry_run=dry_run)
        if not dry_run:
            await self._until_deleted(jobs)
        return told

    async def prune(self, older_than_s: float, *, dry_run: bool) -> tuple[DeletedJob, ...]:
        """Delete every job that ended longer ago than that and of which nothing waits."""
        return await self.delete(await self.ended(older_than_s), dry_run=dry_run)

    async def delete_here(self, jobs: Sequence[int], *, dry_run: bool) -> tuple[DeletedJob, ...]:
        """As `delete`, where `run` does not: the images are gone on return too."""
        told = await self._mark(jobs, dry_run=dry_run)
        if not dry_run:
            await self._delete_marked()
            await self._cleanup.clean_marked()
        return told

    async def ended(self, older_than_s: float) -> list[int]:
        """The jobs that ended longer ago than that and of which nothing waits."""
        return await self._store.ended_before(time.time() - older_than_s)

    async def _mark(self, jobs: Sequence[int], *, dry_run: bool) -> tuple[DeletedJob, ...]:
        told = await self._told([await self._ended(job) for job in jobs])
        for job in () if dry_run else jobs:
            await self._store.mark_deleted(job)  # on a disk without a page to spare this is refused, and said
        return told

    async def run(self) -> None:
        """Finish what was begun, then prune by the settings, until cancelled."""
        while True:
            self._woken = anyio.Event()
            await self._delete_marked()
            await self._prune_by_settings()
            with anyio.move_on_after(EVERY_S):
                await self._woken.wait()

    async def _ended(self, job: int) -> JobRow:
        row = await self._store.job(job)
        if row is None:
            raise unknown_job(job)
        if row.state not in TERMINAL_JOB_STATES:
            raise InputError(
                f"job {job}: cannot be deleted, it is {row.state}",
                code="wrong_job_state",
                hint=f"`imgdiffd cancel {job}` ends it",
            )
        return row

    async def _told(self, rows: Iterable[JobRow]) -> tuple[DeletedJob, ...]:
        rows = list(rows)
        progress = await self._store.progress_of([row.id for row in rows])
        return tuple(
            DeletedJob(
                id=row.id,
                name=row.name,
                state=row.state,
                finished_at=row.finished_at,
                captions=row.total,
                samples=sum(each.samples for each in progress.get(row.id, {}).values()),
            )
            for row in rows
        )

    async def _until_deleted(self, jobs: Collection[int]) -> None:
        self._woken.set()
        async with self._done:
            while set(jobs) & set(await self._store.marked_deleted()):
                await self._done.wait()

    async def _delete_marked(self) -> None:
        jobs = await self._store.marked_deleted()
        for job in jobs:
            items = await self._store.items_of(job)
            self._scheduler.forget(await self._store.of_job(job, self._scheduler.held))
            while await self._disk.retry_while_full(partial(self._store.delete_some, job)):
                pass
            self._cleanup.mark_deleted(items)
            _log.info("job %d is deleted", job)
            async with self._done:
                self._done.notify_all()
        if jobs:
            while await self._disk.retry_while_full(self._store.shrink_some):
                pass
            await self._store.checkpoint()

    async def _prune_by_settings(self) -> None:
        if days := self._settings.keep_jobs_days:
            for job in await self._store.ended_before(time.time() - days * DAY_S):
                await self._disk.retry_while_full(partial(self._store.mark_deleted, job))
            await self._delete_marked()
        try:
            await self._trim_done(int(self._settings.keep_done_gb * 1e9))
        except OSError as error:  # the inbox reports a folder that cannot be read
            _log.warning("inbox: read files cannot be removed yet: %s", error)

    async def _trim_done(self, limit_bytes: int) -> None:
        files = await to_thread.run_sync(self._outbox.read_files)
        excess = sum(size for _, size in files) - limit_bytes
        removed = 0
        for path, size in files:
            if excess <= 0:
                break
            if not await self._store.is_open(await to_thread.run_sync(_digest, path)):
                path.unlink(missing_ok=True)
                excess -= size
                removed += 1
        if removed:
            _log.info("inbox: removed %d of the files that were read longest ago; keep_done_gb limits them", removed)


@asynccontextmanager
async def without_daemon(settings: Settings) -> AsyncIterator[Pruning]:
    """What deletes from a database that no daemon uses; its lock is held meanwhile, so that none starts.

    Raises StoreError where a daemon holds the lock, or where there is no database.
    """
    refuse_lost(settings.database, settings.images)
    if not settings.database.exists():
        raise StoreError(f"{settings.database}: no such database", hint="start the daemon once, or name other settings")
    async with Store.open(settings.database, removal=True) as store:
        nobody, cleanup = _Nobody(), Cleanup(store, settings.images, settings.keep_pictures)
        yield Pruning(store, nobody, cleanup, nobody, settings)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
