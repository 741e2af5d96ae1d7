"""What the rest of the daemon asks of the database: each question one call, each with a snapshot of its own."""

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import anyio
from anyio import CancelScope

from imgdiffd.images.retention import ItemImages
from imgdiffd.job import CaptionProblem, JobChoice
from imgdiffd.method.messages import StageInput
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
    reports,
    samples,
)
from imgdiffd.store.found import Cursor, ItemPage, Order, SamplePage, Wanted
from imgdiffd.store.jobs import ALL
from imgdiffd.store.looking import list_items_by, list_samples_by
from imgdiffd.store.open_work import OpenTotals
from imgdiffd.store.previews import PreviewsRow
from imgdiffd.store.read_pool import ReadPool
from imgdiffd.store.rows import (
    FunnelCounts,
    JobRow,
    Overview,
    ProgressOf,
    Timing,
)
from imgdiffd.store.stories import ItemStory, RemovalSampleRow, SampleRow

PAGE = 500  # samples per page


class Questions:
    """The reading half of an open database. Every call may raise StoreError; an unknown job raises InputError."""

    def __init__(self, readers: ReadPool, pipelines: frozenset[Pipeline], changed: set[int]) -> None:
        """`changed` gets the number of each job that a commit has changed."""
        self._read = readers.ask
        self._pipelines = pipelines
        self._profiles: dict[str, Profile] = {}
        self._changed = changed
        self._work = OpenTotals()
        self._has_looked = False
        self._looking = anyio.Lock()

    async def failures(self, job: int | None = None) -> dict[str, int]:
        """How many items `retry` would take, by reason, the most frequent first."""
        return await self._read(lambda c: orders.failures(c, job))

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

    async def marked_deleted(self) -> list[int]:
        """The jobs that are to be deleted."""
        return await self._read(prune.marked)

    async def ended_before(self, moment: float) -> list[int]:
        """The jobs that ended before that time and of which nothing waits."""
        return await self._read(lambda c: prune.ended_before(c, moment))

    async def is_open(self, sha256: str) -> bool:
        """Whether a job of a file with this digest has not ended."""
        return await self._read(lambda c: prune.is_open(c, sha256))

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

    async def paused(self) -> bool:
        """Whether dispatch as a whole is paused; survives a restart."""
        return await self._read(meta.paused)

    async def overview(self, opened: int, ended: int, waiting_of: int = ALL) -> Overview:
        """The first `opened` open jobs in the order of work, the newest `ended` ended ones, and the totals of all.

        What waits is told job by job of the first `waiting_of` open jobs. It takes a look at these and at the jobs that
        have changed since the last call, however many others are open.
        """
        return await self._overview(lambda c, work: reports.first_jobs(c, work, opened, ended), waiting_of)

    async def overview_of(self, job: int) -> Overview:
        """The job, and the totals of all."""
        return await self._overview(lambda c, _: [jobs.known_job(c, job)])

    async def page(self, choice: JobChoice, limit: int, after: int | None) -> Overview:
        """As `jobs`, with the totals of all."""
        return await self._overview(lambda c, _: jobs.list_jobs(c, choice, limit, after))

    async def _overview(
        self, choose: Callable[[sqlite3.Connection, OpenTotals], Sequence[JobRow]], waiting_of: int = ALL
    ) -> Overview:
        async with self._looking:
            changed = self._changed.copy()
            self._changed -= changed

            def look(connection: sqlite3.Connection) -> Overview:
                self._work.look(connection, changed if self._has_looked else None)
                return reports.overview(connection, choose(connection, self._work), self._work, waiting_of)

            try:
                with CancelScope(shield=True):  # a thread that has begun goes on, and another must not look meanwhile
                    found = await self._read(look)
            except BaseException:
                self._changed |= changed
                raise
            self._has_looked = True
            return found

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

    async def sample_page(self, wanted: Wanted, limit: int, after: Cursor, order: Order) -> SamplePage:
        """A part of the samples that are wanted. Raises InputError for an unknown job or profile."""
        return await self._read(lambda c: list_samples_by(c, wanted, limit, after, order))

    async def item_page(self, wanted: Wanted, limit: int, after: Cursor, order: Order) -> ItemPage:
        """A part of the items that are wanted. Raises InputError for an unknown job or profile."""
        return await self._read(lambda c: list_items_by(c, wanted, limit, after, order))

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
