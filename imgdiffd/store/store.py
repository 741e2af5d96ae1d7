"""The database as the rest of the daemon sees it: every change one call, beside the questions."""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from anyio import CancelScope, to_thread

from imgdiffd.errors import InputError, StoreDamagedError, first_line
from imgdiffd.job import CaptionProblem, CaptionRecord, JobState
from imgdiffd.method.messages import StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.store import images as image_rows
from imgdiffd.store import items, jobs, meta, orders, previews, prune, refiltering, repainting, results
from imgdiffd.store.adoption import other_profiles
from imgdiffd.store.bundles import NO_BUNDLE, keep_bundle
from imgdiffd.store.connection import connected, locked, run_on
from imgdiffd.store.damage import SqliteErrors
from imgdiffd.store.open_work import note_changes
from imgdiffd.store.questions import Questions
from imgdiffd.store.read_pool import ReadPool
from imgdiffd.store.rows import (
    BundleRow,
    JobRow,
    Recorded,
    Whole,
)
from imgdiffd.store.taking_over import RefilterCounts, TakingOver
from imgdiffd.store.writer import Writer

BACKFILL_CHUNK = 5000  # pairs per operation

Clock = Callable[[], float]
Missing = Callable[[Collection[str]], Collection[str]]  # returns which of these images are gone


class Store(Questions):
    """One open database. Changes return once they are durable; cancelling the caller does not undo them.

    Without `removal`, no items of object removal are made, and existing ones keep waiting. Early abort is calibrated
    for the models of `bundle`. Every call may raise StoreError. A change to a job that is unknown or in the wrong state
    raises InputError with code `unknown_job` or `wrong_job_state` and changes nothing.
    """

    def __init__(
        self,
        writer: Writer,
        readers: ReadPool,
        clock: Clock,
        instance: str,
        *,
        removal: bool = False,
        bundle: str = "",
        worker: int | None = None,
        images: Path | None = None,
        models: BundleRow = NO_BUNDLE,
        changed: set[int],
    ) -> None:
        pipelines = frozenset(Pipeline) if removal else frozenset(Pipeline) - {Pipeline.REMOVAL}
        super().__init__(readers, pipelines, changed)
        self._write = writer.submit
        self._checkpoint = readers.checkpoint
        self._clock = clock
        self._bundle = bundle
        self._worker = worker
        self._taking_over = TakingOver(self._read, self._write, images, models, self._pipelines, clock)
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
        models: BundleRow = NO_BUNDLE,
        images: Path | None = None,
        on_commit: Callable[[], None] = lambda: None,
        on_damage: Callable[[StoreDamagedError], None] = lambda error: None,
    ) -> AsyncIterator["Store"]:
        """Open the database at `path`, or create it. On leaving, all changes are on disk and it is closed.

        `models` are those that work on its jobs from now on, which is recorded with each job. Where the folder `images`
        is given too, captions take over what the same models have made of them under other profiles.
        `on_commit` is called after every change, `on_damage` when the database turns out to be damaged while it is
        used; both must return at once and raise nothing. Raises StoreError if another daemon uses the database,
        ConfigurationError if it is too new or not ours, StoreDamagedError if it is damaged.
        """
        with locked(path):
            refusal = SqliteErrors(path, on_damage)
            changing, changed = set[int](), set[int]()  # jobs: by the transaction under way, and since the last look

            def committed() -> None:
                changed.update(changing)
                changing.clear()
                on_commit()

            async with (
                connected(path, writer=True) as connection,
                Writer(connection, refusal, on_full, committed).running() as writer,
                ReadPool.open(path, refusal) as readers,
            ):
                await run_on(connection, lambda raw: note_changes(raw, changing.add))
                if not removal:
                    await writer.submit(meta.need_backfill)
                instance = await writer.submit(meta.instance)
                worker = await writer.submit(partial(keep_bundle, bundle=models))
                yield cls(
                    writer,
                    readers,
                    clock,
                    instance,
                    removal=removal,
                    bundle=bundle,
                    worker=worker,
                    images=images,
                    models=models,
                    changed=changed,
                )

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
        now, bundle, shares = self._clock(), self._bundle, self._taking_over.possible

        def add(connection: sqlite3.Connection) -> JobRow:
            admitted = previews.admitted(connection, profile, bundle, sha256)
            finish = not (shares and other_profiles(connection, admitted))
            return jobs.add_job(
                connection, name, source, sha256, admitted, priority, now, whole, changed_at, finish=finish
            )

        row = await self._write(add)
        if whole is None or row.state is not JobState.READING:
            return row
        try:
            return await self.finish_reading(row.id)
        except Exception as error:  # the file is taken again, and must not count as this job's duplicate
            with suppress(InputError):  # a person cancelled it
                await self.fail_job(row.id, first_line(error))
            raise

    async def add_captions(
        self, job: int, records: Sequence[CaptionRecord], problems: Sequence[CaptionProblem] = ()
    ) -> tuple[int, int]:
        """Insert captions into a READING job; returns how many were accepted and how many were duplicates."""
        now = self._clock()
        return await self._write(lambda c: jobs.add_captions(c, job, records, problems, now))

    async def finish_reading(self, job: int) -> JobRow:
        """Mark a fully read job ACTIVE, or DONE if it brought nothing new.

        First its captions take over what there is of them under other profiles: each caption is one set of work.
        """
        row = await self._read(lambda c: jobs.known_job(c, job))
        await self._taking_over.fill(job, await self.profile_of(row.group))
        now = self._clock()
        return await self._write(lambda c: jobs.finish_reading(c, job, now))

    async def refilter(
        self, profile: Profile, job: int | None = None, *, paint: bool = False
    ) -> tuple[RefilterCounts, list[tuple[JobRow, JobRow]]]:
        """Bring captions that ended under other profiles, of one job or all, under this one, as new jobs.

        Returns what that is, and each job with its new one: what is stored counts, and only work that is missing
        waits. Raises InputError, before anything changes, with the code `needs_painting` where pairs must be painted,
        unless that is wanted.
        """
        bundle = self._bundle

        def keep(connection: sqlite3.Connection) -> tuple[Profile, list[int]]:
            if job is not None:
                jobs.known_job(connection, job)
            admitted = previews.admitted(connection, profile, bundle, "")
            return admitted, refiltering.same_profiles(connection, jobs.keep_profile(connection, admitted))

        admitted, same = await self._write(keep)
        plan = await self._taking_over.plan(same, admitted, job)
        if not paint:
            plan.refuse_painting()
        return plan, await self._taking_over.refilter(same, admitted, job, self.finish_reading, self.fail_job)

    async def fail_job(self, job: int, error: str) -> JobRow:
        """Mark a job whose file cannot be read FAILED, and cancel the items that it has so far."""
        now = self._clock()
        with CancelScope(shield=True):
            await self._write(lambda c: jobs.fail_job(c, job, error, now))
            await self._cancel_leftovers(job)
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
            await self._cancel_leftovers(job)
        return await self._read(lambda c: jobs.known_job(c, job))

    async def _cancel_leftovers(self, job: int | None = None) -> None:
        now = self._clock()
        while await self._write(lambda c: orders.cancel_leftovers(c, now, job)):
            pass

    async def retry(self, job: int | None = None, reason: str | None = None) -> int:
        """Make FAILED items READY again, optionally of one job or reason; returns how many."""
        now = self._clock()
        return await self._write(lambda c: orders.retry(c, job, reason, now))

    # Deleting jobs

    async def mark_deleted(self, job: int) -> None:
        """Have an ended job deleted by `delete_marked`, after a restart too."""
        now = self._clock()
        await self._write(lambda c: prune.mark(c, job, now))

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

    # Work

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
        batch = (stage, device, profile, outputs, attempts, seconds, now, self._pipelines, self._bundle, self._worker)
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
        while pairs := await self._read(partial(image_rows.missed_pairs, after=after, limit=BACKFILL_CHUNK)):
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

    async def set_paused(self, paused: bool) -> None:
        """Pause or resume dispatch as a whole."""
        await self._write(lambda c: meta.put(c, "paused", "yes" if paused else "no"))
