"""The database as the rest of the daemon sees it: questions and changes, each one call."""

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from anyio import CancelScope, to_thread

from imgdiffd.images.retention import ItemImages
from imgdiffd.job import CaptionProblem, CaptionRecord
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Pipeline, Stage, Task
from imgdiffd.store import images, items, jobs, meta, reports, results, samples
from imgdiffd.store.connection import connected, locked
from imgdiffd.store.read_pool import ReadPool
from imgdiffd.store.rows import (
    FunnelCounts,
    ItemStory,
    JobRow,
    ProgressOf,
    Recorded,
    SampleRow,
    Timing,
    Whole,
)
from imgdiffd.store.writer import Writer

PAGE = 500  # samples a question when they are streamed
BACKFILL_CHUNK = 5000  # pairs in one operation

Clock = Callable[[], float]
Missing = Callable[[Collection[str]], Collection[str]]  # those of these images that are gone


class Store:
    """One open database. Changes return once they are durable; cancelling the caller does not undo them.

    Without `removal`, items of object removal do not begin, and those that wait go on waiting. Every call may raise
    StoreError. A change that names an unknown job, or one that is not in a state for it, raises InputError with code
    `unknown_job` or `wrong_job_state` and changes nothing.
    """

    def __init__(
        self, writer: Writer, readers: ReadPool, clock: Clock, instance: str, *, removal: bool = False
    ) -> None:
        self._write = writer.submit
        self._read = readers.ask
        self._clock = clock
        self._profiles: dict[str, Profile] = {}
        self._pipelines = frozenset(Pipeline) if removal else frozenset(Pipeline) - {Pipeline.REMOVAL}
        self.instance = instance  # of this database, for ever

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        clock: Clock = time.time,
        on_full: Callable[[], bool] = lambda: False,
        *,
        removal: bool = False,
        on_commit: Callable[[], None] = lambda: None,
    ) -> AsyncIterator["Store"]:
        """The database at `path`, made if it is not there; closed, with all changes on disk, on leaving.

        `on_commit` is called after every change, whoever made it; it must return at once and raise nothing.
        Raises StoreError where another daemon has it, ConfigurationError where it is newer than we are or not ours.
        """
        with locked(path):
            async with (
                connected(path, writer=True) as connection,
                Writer(connection, on_full, on_commit).running() as writer,
                ReadPool.open(path) as readers,
            ):
                if not removal:
                    await writer.submit(meta.need_backfill)
                yield cls(writer, readers, clock, await writer.submit(meta.instance), removal=removal)

    # Jobs coming in

    async def add_job(
        self, name: str, source: str, sha256: str, profile: Profile, priority: int = 0, whole: Whole | None = None
    ) -> JobRow:
        """A new job, READING; DONE with `duplicate_of` set where that content was taken under that profile before.

        With `whole`, everything that the file brings, it is read to its end in the same transaction.
        """
        now = self._clock()
        return await self._write(lambda c: jobs.add_job(c, name, source, sha256, profile, priority, now, whole))

    async def add_captions(
        self, job: int, records: Sequence[CaptionRecord], problems: Sequence[CaptionProblem] = ()
    ) -> tuple[int, int]:
        """Insert a chunk of captions into a READING job; returns how many were accepted, how many duplicates."""
        now = self._clock()
        return await self._write(lambda c: jobs.add_captions(c, job, records, problems, now))

    async def finish_reading(self, job: int) -> JobRow:
        """The file is read to its end: ACTIVE, or DONE where it brought nothing new."""
        now = self._clock()
        return await self._write(lambda c: jobs.finish_reading(c, job, now))

    async def fail_job(self, job: int, error: str) -> JobRow:
        """The file cannot be read: FAILED, what it had brought so far cancelled."""
        now = self._clock()
        with CancelScope(shield=True):
            await self._write(lambda c: jobs.fail_job(c, job, error, now))
            await self._cancel_leftovers()
        return await self._read(lambda c: jobs.known_job(c, job))

    async def drop_unread_jobs(self) -> list[JobRow]:
        """Remove what a previous daemon was still reading, and end what it was cancelling; before the inbox opens."""
        dropped = await self._write(jobs.drop_unread_jobs)
        await self._cancel_leftovers()
        return dropped

    # Jobs under way

    async def pause(self, job: int) -> JobRow:
        """ACTIVE to PAUSED."""
        now = self._clock()
        return await self._write(lambda c: jobs.pause(c, job, now))

    async def resume(self, job: int) -> JobRow:
        """PAUSED to ACTIVE, or on to DONE where nothing is left."""
        now = self._clock()
        return await self._write(lambda c: jobs.resume(c, job, now))

    async def cancel(self, job: int) -> JobRow:
        """The job and its READY items are CANCELLED; of a job that is DONE, just the items that it left behind."""
        now = self._clock()
        with CancelScope(shield=True):
            rest = 0
            while count := await self._write(lambda c: jobs.cancel_rest(c, job, now)):
                rest += count
            if not rest:
                await self._write(lambda c: jobs.cancel(c, job, now))
            await self._cancel_leftovers()
        return await self._read(lambda c: jobs.known_job(c, job))

    async def _cancel_leftovers(self) -> None:
        now = self._clock()
        while await self._write(lambda c: jobs.cancel_leftovers(c, now)):
            pass

    async def retry(self, job: int | None = None, reason: str | None = None) -> int:
        """FAILED items READY again, of one job or reason where given; returns how many."""
        now = self._clock()
        return await self._write(lambda c: jobs.retry(c, job, reason, now))

    async def jobs(self, limit: int = 1000) -> list[JobRow]:
        """The newest jobs first."""
        return await self._read(lambda c: jobs.list_jobs(c, limit))

    async def job(self, job: int) -> JobRow | None:
        """The job, or None."""
        return await self._read(lambda c: jobs.find_job(c, job))

    async def problems(self, job: int, limit: int = 1000) -> list[CaptionProblem]:
        """Records of the job's file that could not be read."""
        return await self._read(lambda c: jobs.list_problems(c, job, limit))

    # Work

    async def ready_tasks(self, room: int, held: Collection[int]) -> list[Task]:
        """At most `room` READY items of jobs that run, not `held`.

        In this order: the background last, downstream stages first, priority, fair shares of jobs, age.
        """
        taken, pipelines = frozenset(held), self._pipelines
        tasks = await self._read(lambda c: items.ready_tasks(c, room, taken, pipelines))
        return [replace(task, open_bytes=(await self.profile_of(task.group)).open_bytes) for task in tasks]

    async def stage_inputs(self, stage: Stage, wanted: Sequence[int]) -> list[StageInput]:
        """The stage's inputs in order, without items that are no longer READY in it."""
        return await self._read(lambda c: items.stage_inputs(c, stage, wanted))

    async def profile_of(self, group: str) -> Profile:
        """The profile that a task's group stands for."""
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
        """Keep a batch's results and move its items, in one transaction; stale results are dropped and counted."""
        now = self._clock()
        batch = (stage, device, profile, outputs, attempts, seconds, now, self._pipelines)
        return await self._write(lambda c: results.record(c, *batch))

    async def record_crashes(self, crashed: Collection[int]) -> None:
        """Each of these killed or broke a worker alone."""
        now = self._clock()
        await self._write(lambda c: items.record_crashes(c, crashed, now))

    async def quarantine(self, item: int, reason: str, detail: str) -> bool:
        """The item is FAILED; False where it had ended already."""
        now = self._clock()
        return await self._write(lambda c: items.quarantine(c, item, reason, detail, now))

    async def backfill_pairs(self, missing: Missing = lambda names: ()) -> None:
        """Begin object removal with the pairs that passed the similarity gate while the daemon ran without it.

        Not with those of whose images `missing`, called in a thread, names one: they were not kept.
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

    async def paused(self) -> bool:
        """Whether dispatch as a whole was paused; survives a restart."""
        return await self._read(lambda c: meta.get(c, "paused") == "yes")

    async def set_paused(self, paused: bool) -> None:
        """Pause or resume dispatch as a whole."""
        await self._write(lambda c: meta.put(c, "paused", "yes" if paused else "no"))

    # Reports

    async def progress(self, job: int | None = None) -> ProgressOf:
        """Counts per pipeline, stage and state."""
        return await self._read(lambda c: reports.progress(c, job))

    async def progress_of(self, wanted: Collection[int]) -> dict[int, ProgressOf]:
        """The same of each of these jobs that has captions, in one question."""
        return await self._read(lambda c: reports.progress_of_jobs(c, wanted))

    async def funnel(self, job: int | None = None) -> FunnelCounts:
        """From captions to samples, with reasons."""
        return await self._read(lambda c: reports.funnel(c, job))

    async def timings(self) -> list[Timing]:
        """Cost per stage and device."""
        return await self._read(reports.timings)

    async def samples(self, job: int | None = None, after: int = 0, limit: int = PAGE) -> list[SampleRow]:
        """The next page of samples by id."""
        return await self._read(lambda c: samples.list_samples(c, job, after, limit))

    async def newest_sample(self) -> int:
        """The highest id of a sample, 0 where there is none. No later sample has one as low."""
        return await self._read(samples.newest_sample)

    async def item_story(self, item: int) -> ItemStory:
        """Everything known of an item. Raises InputError with code `unknown_item`."""
        return await self._read(lambda c: samples.item_story(c, item))

    async def images(self, of: range) -> Mapping[int, ItemImages]:
        """The images of the items `of` that rows name, by item, with what says whether they are wanted."""
        return await self._read(lambda c: images.images(c, of, removal=Pipeline.REMOVAL in self._pipelines))

    async def of_job(self, job: int, among: Collection[int]) -> list[int]:
        """Those of these items that belong to the job."""
        return await self._read(lambda c: items.of_job(c, job, among))

    async def items_of(self, job: int) -> range:
        """The job's items, others perhaps among them."""
        return await self._read(lambda c: images.items_of(c, job))
