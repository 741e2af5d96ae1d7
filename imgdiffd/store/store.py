"""The database as the rest of the daemon sees it: questions and changes, each one call."""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from anyio import CancelScope, to_thread

from imgdiffd.errors import StoreDamagedError
from imgdiffd.images.retention import ItemImages
from imgdiffd.job import CaptionProblem, CaptionRecord, JobChoice
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Pipeline, Stage, Task
from imgdiffd.store import (
    erasures,
    images,
    items,
    jobs,
    meta,
    orders,
    previews,
    prune,
    repainting,
    reports,
    results,
    samples,
)
from imgdiffd.store.connection import connected, locked
from imgdiffd.store.damage import SqliteErrors
from imgdiffd.store.previews import PreviewsRow
from imgdiffd.store.read_pool import ReadPool
from imgdiffd.store.rows import (
    FunnelCounts,
    ItemStory,
    JobRow,
    Overview,
    ProgressOf,
    Recorded,
    RemovalSampleRow,
    SampleRow,
    Timing,
    Whole,
)
from imgdiffd.store.writer import Writer

PAGE = 500  # samples per page
BACKFILL_CHUNK = 5000  # pairs per operation

Clock = Callable[[], float]
Missing = Callable[[Collection[str]], Collection[str]]  # returns which of these images are gone


class Store:
    """One open database. Changes return once they are durable; cancelling the caller does not undo them.

    Without `removal`, no items of object removal are made, and existing ones keep waiting. Early abort is calibrated
    for the models of `bundle`. Every call may raise StoreError. A change to a job that is unknown or in the wrong state
    raises InputError with code `unknown_job` or `wrong_job_state` and changes nothing.
    """

    def __init__(
        self, writer: Writer, readers: ReadPool, clock: Clock, instance: str, *, removal: bool = False, bundle: str = ""
    ) -> None:
        self._write = writer.submit
        self._read = readers.ask
        self._checkpoint = readers.checkpoint
        self._clock = clock
        self._profiles: dict[str, Profile] = {}
        self._pipelines = frozenset(Pipeline) if removal else frozenset(Pipeline) - {Pipeline.REMOVAL}
        self._bundle = bundle
        self.instance = instance  # identifies this database and never changes

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        clock: Clock = time.time,
        on_full: Callable[[], bool] = lambda: False,
        *,
        removal: bool = False,
        bundle: str = "",
        on_commit: Callable[[], None] = lambda: None,
        on_damage: Callable[[StoreDamagedError], None] = lambda error: None,
    ) -> AsyncIterator["Store"]:
        """Open the database at `path`, or create it. On leaving, all changes are on disk and it is closed.

        `on_commit` is called after every change, `on_damage` when the database turns out to be damaged while it is
        used; both must return at once and raise nothing. Raises StoreError if another daemon uses the database,
        ConfigurationError if it is too new or not ours, StoreDamagedError if it is damaged.
        """
        with locked(path):
            refusal = SqliteErrors(path, on_damage)
            async with (
                connected(path, writer=True) as connection,
                Writer(connection, refusal, on_full, on_commit).running() as writer,
                ReadPool.open(path, refusal) as readers,
            ):
                if not removal:
                    await writer.submit(meta.need_backfill)
                instance = await writer.submit(meta.instance)
                yield cls(writer, readers, clock, instance, removal=removal, bundle=bundle)

    # Adding jobs

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
        """Insert a job: READING, or DONE with `duplicate_of` set if another job has this content and profile.

        With `whole`, the entire content of its file, it is read to its end in the same transaction. If a job has taken
        the file at `source` as it is since `changed_at`, that one is returned. The job's own profile has the thresholds
        of early abort that are in force now, where `profile` leaves them open.
        """
        now, bundle = self._clock(), self._bundle

        def add(connection: sqlite3.Connection) -> JobRow:
            admitted = previews.admitted(connection, profile, bundle, sha256)
            return jobs.add_job(connection, name, source, sha256, admitted, priority, now, whole, changed_at)

        return await self._write(add)

    async def add_captions(
        self, job: int, records: Sequence[CaptionRecord], problems: Sequence[CaptionProblem] = ()
    ) -> tuple[int, int]:
        """Insert captions into a READING job; returns how many were accepted and how many were duplicates."""
        now = self._clock()
        return await self._write(lambda c: jobs.add_captions(c, job, records, problems, now))

    async def finish_reading(self, job: int) -> JobRow:
        """Mark a fully read job ACTIVE, or DONE if it brought nothing new."""
        now = self._clock()
        return await self._write(lambda c: jobs.finish_reading(c, job, now))

    async def fail_job(self, job: int, error: str) -> JobRow:
        """Mark a job whose file cannot be read FAILED, and cancel the items that it has so far."""
        now = self._clock()
        with CancelScope(shield=True):
            await self._write(lambda c: jobs.fail_job(c, job, error, now))
            await self._cancel_leftovers()
        return await self._read(lambda c: jobs.known_job(c, job))

    async def drop_unread_jobs(self) -> list[JobRow]:
        """Remove half-read jobs of a previous daemon and finish its cancelling; call it before the inbox opens."""
        dropped = await self._write(jobs.drop_unread_jobs)
        await self._cancel_leftovers()
        return dropped

    # Controlling jobs

    async def pause(self, job: int) -> JobRow:
        """Move the job from ACTIVE to PAUSED."""
        now = self._clock()
        return await self._write(lambda c: orders.pause(c, job, now))

    async def resume(self, job: int) -> JobRow:
        """Move the job from PAUSED to ACTIVE, or to DONE if nothing is left."""
        now = self._clock()
        return await self._write(lambda c: orders.resume(c, job, now))

    async def cancel(self, job: int) -> JobRow:
        """Cancel the job and its READY items; of a DONE job, only the items that it left behind."""
        now = self._clock()
        with CancelScope(shield=True):
            rest = 0
            while count := await self._write(lambda c: orders.cancel_rest(c, job, now)):
                rest += count
            if not rest:
                await self._write(lambda c: orders.cancel(c, job, now))
            await self._cancel_leftovers()
        return await self._read(lambda c: jobs.known_job(c, job))

    async def _cancel_leftovers(self) -> None:
        now = self._clock()
        while await self._write(lambda c: orders.cancel_leftovers(c, now)):
            pass

    async def failures(self, job: int | None = None) -> dict[str, int]:
        """How many items `retry` would take, by reason, the most frequent first."""
        return await self._read(lambda c: orders.failures(c, job))

    async def retry(self, job: int | None = None, reason: str | None = None) -> int:
        """Make FAILED items READY again, optionally of one job or reason; returns how many."""
        now = self._clock()
        return await self._write(lambda c: orders.retry(c, job, reason, now))

    async def jobs(self, choice: JobChoice = "all", limit: int = jobs.ALL, after: int | None = None) -> list[JobRow]:
        """The first `limit` jobs of `choice` after the cursor `after`: the open ones, then the ended, newest first.

        A cursor is the number of the last job seen, negative if that one had ended.
        """
        return await self._read(lambda c: jobs.list_jobs(c, choice, limit, after))

    async def open_jobs(self) -> tuple[frozenset[int], int]:
        """The jobs that have not ended, and the highest number ever given."""
        return await self._read(jobs.open_jobs)

    async def job(self, job: int) -> JobRow | None:
        """The job, or None if it is unknown."""
        return await self._read(lambda c: jobs.find_job(c, job))

    async def problems(self, job: int, limit: int = 1000, after: int = 0) -> list[CaptionProblem]:
        """Up to `limit` records of the job's file that could not be read, behind the first `after`."""
        return await self._read(lambda c: jobs.list_problems(c, job, limit, after))

    # Deleting jobs

    async def mark_deleted(self, job: int) -> None:
        """Have an ended job deleted by `delete_marked`, after a restart too."""
        now = self._clock()
        await self._write(lambda c: prune.mark(c, job, now))

    async def marked_deleted(self) -> list[int]:
        """The jobs that are to be deleted."""
        return await self._read(prune.marked)

    async def delete_some(self, job: int) -> bool:
        """Delete some of a marked job's rows; returns whether more are left. Its images stay."""
        now = self._clock()
        return await self._write(lambda c: prune.delete_some(c, job, now))

    async def shrink_some(self) -> bool:
        """Give some free room in the database back to the file system; returns whether there is more."""
        return await self._write(prune.shrink_some)

    async def checkpoint(self) -> None:
        """Copy the write-ahead log into the database, as far as no reader needs it; the file shrinks then."""
        await self._checkpoint()

    async def ended_before(self, moment: float) -> list[int]:
        """The jobs that ended before that time and of which nothing waits."""
        return await self._read(lambda c: prune.ended_before(c, moment))

    async def is_open(self, sha256: str) -> bool:
        """Whether a job of a file with this digest has not ended."""
        return await self._read(lambda c: prune.is_open(c, sha256))

    # Work

    async def ready_tasks(self, room: int, held: Collection[int]) -> list[Task]:
        """At most `room` READY items that are not `held` and whose jobs are running.

        Sorted: the background last, then by downstream stage, priority, fair shares of jobs, age.
        """
        taken, pipelines = frozenset(held), self._pipelines
        tasks = await self._read(lambda c: items.ready_tasks(c, room, taken, pipelines))
        return [replace(task, open_bytes=(await self.profile_of(task.group)).open_bytes) for task in tasks]

    async def stage_inputs(self, stage: Stage, wanted: Sequence[int]) -> list[StageInput]:
        """The stage's inputs in order; items that are no longer READY in it are left out."""
        return await self._read(lambda c: items.stage_inputs(c, stage, wanted))

    async def profile_of(self, group: str) -> Profile:
        """The profile of a task's group."""
        if group not in self._profiles:
            self._profiles[group] = await self._read(lambda c: samples.profile_of(c, group))
        return self._profiles[group]

    async def record(
        self,
        stage: Stage,
        device: str,
        profile: Profile,
        outputs: Sequence[StageOutput],
        attempts: Mapping[int, int],
        seconds: float,
    ) -> Recorded:
        """Keep a batch's results and move its items in one transaction; stale results are dropped and counted."""
        now = self._clock()
        batch = (stage, device, profile, outputs, attempts, seconds, now, self._pipelines, self._bundle)
        return await self._write(lambda c: results.record(c, *batch))

    async def record_crashes(self, crashed: Collection[int]) -> None:
        """Count a crash against each of these items: alone in its batch, it killed or broke a worker."""
        now = self._clock()
        await self._write(lambda c: items.record_crashes(c, crashed, now))

    async def quarantine(self, item: int, reason: str, detail: str) -> bool:
        """Mark the item FAILED; returns False if it had already ended."""
        now = self._clock()
        return await self._write(lambda c: items.quarantine(c, item, reason, detail, now))

    async def backfill_pairs(self, missing: Missing = lambda names: ()) -> None:
        """Begin object removal with the pairs that passed the similarity gate while the daemon ran without it.

        Skips pairs with an image that was not kept: `missing`, called in a thread, names such images.
        """
        now, after = self._clock(), 0
        if await self._read(lambda c: meta.get(c, meta.BACKFILLED) == "yes"):
            return
        while pairs := await self._read(partial(images.missed_pairs, after=after, limit=BACKFILL_CHUNK)):
            gone = frozenset(await to_thread.run_sync(missing, [name for _, *pair in pairs for name in pair]))
            there = [item for item, *pair in pairs if not gone.intersection(pair)]
            await self._write(partial(items.derive, pipeline=Pipeline.REMOVAL, origins=there, now=now))
            after = pairs[-1][0]
        await self._write(lambda c: meta.put(c, meta.BACKFILLED, "yes"))

    async def repaint_missing(self, missing: Missing) -> int:
        """Have every waiting caption whose images are gone painted again; returns how many. Call it before any work.

        `missing`, called in a thread, names the images that are gone.
        """
        now, after, count = self._clock(), 0, 0
        while pairs := await self._read(partial(repainting.waiting_pairs, after=after, limit=BACKFILL_CHUNK)):
            gone = frozenset(await to_thread.run_sync(missing, [name for _, *pair in pairs for name in pair]))
            lost = [item for item, *pair in pairs if gone.intersection(pair)]
            if lost:
                count += await self._write(partial(repainting.repaint, items=lost, now=now))
            after = pairs[-1][0]
        return count

    async def paused(self) -> bool:
        """Whether dispatch as a whole is paused; survives a restart."""
        return await self._read(meta.paused)

    async def set_paused(self, paused: bool) -> None:
        """Pause or resume dispatch as a whole."""
        await self._write(lambda c: meta.put(c, "paused", "yes" if paused else "no"))

    # Reports

    async def overview(self, opened: int, ended: int) -> Overview:
        """The first `opened` open jobs in the order of work, the newest `ended` ended ones, and the totals of all."""
        return await self._read(lambda c: reports.overview(c, jobs.first_jobs(c, opened, ended)))

    async def overview_of(self, job: int) -> Overview:
        """The job, and the totals of all."""
        return await self._read(lambda c: reports.overview(c, [jobs.known_job(c, job)]))

    async def page(self, choice: JobChoice, limit: int, after: int | None) -> Overview:
        """As `jobs`, with the totals of all."""
        return await self._read(lambda c: reports.overview(c, jobs.list_jobs(c, choice, limit, after)))

    async def progress(self, job: int | None = None) -> ProgressOf:
        """Counts by pipeline, stage and state, of one job or all."""
        return await self._read(lambda c: reports.progress(c, job))

    async def progress_of(self, wanted: Collection[int]) -> dict[int, ProgressOf]:
        """The progress of each of these jobs that has captions, in one query."""
        return await self._read(lambda c: reports.progress_of_jobs(c, wanted))

    async def funnel(self, job: int | None = None) -> FunnelCounts:
        """How captions narrowed to samples, with reasons."""
        return await self._read(lambda c: reports.funnel(c, job))

    async def previews(self) -> list[PreviewsRow]:
        """What previews show: one row for each profile, bundle and step."""
        return await self._read(previews.every)

    async def timings(self) -> list[Timing]:
        """The cost per stage and device."""
        return await self._read(reports.timings)

    async def samples(self, job: int | None = None, after: int = 0, limit: int = PAGE) -> list[SampleRow]:
        """The next `limit` samples with ids above `after`."""
        return await self._read(lambda c: samples.list_samples(c, job, after, limit))

    async def newest_sample(self) -> int:
        """The highest sample id ever given, or 0. Every later sample has a higher one."""
        return await self._read(samples.newest_sample)

    async def removal_samples(
        self, job: int | None = None, after: int = 0, limit: int = PAGE
    ) -> list[RemovalSampleRow]:
        """The next `limit` removal samples with ids above `after`."""
        return await self._read(lambda c: erasures.list_removal_samples(c, job, after, limit))

    async def newest_removal_sample(self) -> int:
        """The highest id that a removal sample ever had, or 0. Every later one has a higher one."""
        return await self._read(erasures.newest_removal_sample)

    async def item_story(self, item: int) -> ItemStory:
        """Everything known about an item. Raises InputError with code `unknown_item`."""
        return await self._read(lambda c: samples.item_story(c, item))

    async def images(self, of: range) -> Mapping[int, ItemImages]:
        """The images that rows of the items `of` name, by item, and whether they are still wanted."""
        return await self._read(lambda c: images.images(c, of, removal=Pipeline.REMOVAL in self._pipelines))

    async def of_job(self, job: int, among: Collection[int]) -> list[int]:
        """The items in `among` that belong to the job."""
        return await self._read(lambda c: items.of_job(c, job, among))

    async def items_of(self, job: int) -> range:
        """The range of the job's items; it may include items of other jobs."""
        return await self._read(lambda c: images.items_of(c, job))
