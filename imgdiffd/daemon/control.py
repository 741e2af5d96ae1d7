"""Everything the API can see and do, built on the store, the scheduler, the fleet and the inbox."""

import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

import anyio
from anyio import to_thread

from imgdiffd import __version__
from imgdiffd.api.app import BulkVerb, JobVerb
from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.bundles.compatibility import check_agreement
from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.daemon.progress import stranded
from imgdiffd.daemon.refiltering import refilter
from imgdiffd.daemon.reload import LiveSettings
from imgdiffd.daemon.views import (
    OPEN,
    RECENT,
    Etas,
    Pace,
    etas_of,
    funnel_view,
    job_views,
    open_jobs,
    page_view,
    problem_page,
    removal_view,
    seconds_per_item,
    story_view,
)
from imgdiffd.errors import InputError, unknown_job
from imgdiffd.fleet.supervisor import Fleet
from imgdiffd.inbox import Inbox
from imgdiffd.job import JobChoice
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.status import DeviceView, Funnel, JobPage, JobView, ProblemPage, Refiltered, SchedulerView, Status
from imgdiffd.store import Overview, Store

PAUSED = "paused by a person"
_AT_ONCE = 16  # jobs that are changed at once, so that they share the store's commits
_FEW = 500  # jobs and rows of the queue that take less time to count than a thread to wake


class Watched(Protocol):
    """A part of the daemon that may be in trouble."""

    problem: str  # a sentence, '' if all is well


class DaemonControl:
    """The `Control` of a running daemon."""

    def __init__(
        self,
        live: LiveSettings,
        store: Store,
        scheduler: Scheduler,
        fleet: Fleet,
        inbox: Inbox,
        disk: DiskGuard,
        no_removal: str,
        cleanup: Cleanup,
    ) -> None:
        """`no_removal` says why the daemon does not do object removal, '' if it does."""
        self._live = live
        self._settings = live.settings
        self._store = store
        self._scheduler = scheduler
        self._fleet = fleet
        self._inbox = inbox
        self._disk = disk
        self._no_removal = no_removal
        self._cleanup = cleanup
        self._watched: list[Watched] = []
        self._noted: list[Watched] = []
        self._started = time.monotonic()

    def watch(self, part: "Watched", *, hinders: bool = True) -> None:
        """Show the problems of this part of the daemon too; those that hinder nothing leave it ready."""
        (self._watched if hinders else self._noted).append(part)

    def _all_problems(self, devices: Sequence[DeviceView]) -> tuple[str, ...]:
        problems = [part.problem for part in (self._disk, *self._watched) if part.problem]
        if self._inbox.degraded:
            problems.append(f"inbox: {self._inbox.degraded}")
        problems.extend(
            f"{device.name} restarting: {device.detail}" for device in devices if device.state == "restarting"
        )
        if not any(device.state == "ready" for device in devices):
            problems.append("no device is ready")
        problems.extend(self._fleet.problems())
        return tuple(problems)

    async def status(self, job: int | None = None) -> Status:
        """Everything `imgdiffd status` shows; of all jobs only `job`, if given. Raises InputError if it is unknown."""
        # Jobs that come much later hardly change when those that are shown end, and there may be thousands of them.
        near = OPEN + self._settings.open_tasks
        seen = await (self._store.overview(OPEN, RECENT, near) if job is None else self._store.overview_of(job))
        jobs, etas = await self._views(seen)
        statistics = self._scheduler.statistics()
        devices = self._devices(statistics)
        problems = self._all_problems(devices)
        return Status(
            version=__version__,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            ready=not problems,
            paused=seen.paused,
            problems=problems
            + self._live.problems
            + tuple(part.problem for part in self._noted if part.problem)
            + stranded(seen.queue, devices)
            + tuple(f"{d.name} {d.state}: {d.detail}" for d in devices if d.state == "parked"),
            bundle=self._settings.bundle,
            inbox=str(self._settings.inbox_folder),
            open_tasks=statistics.open,
            steals=statistics.steals,
            devices=devices,
            jobs=jobs,
            job_counts=dict(seen.counts),
            open=open_jobs(seen.queue, etas.all_s),
            removal=removal_view(seen.removal),
            scheduler=statistics,
            no_removal=self._no_removal,
        )

    def _devices(self, statistics: SchedulerView) -> tuple[DeviceView, ...]:
        return self._fleet.views(
            {
                device.name: (device.running_items, sum(device.queued.values()), device.busy_s)
                for device in statistics.devices
            }
        )

    async def _views(self, seen: Overview) -> tuple[tuple[JobView, ...], Etas]:
        """The jobs of `seen`, in their order, and the ETAs of all."""
        statistics = self._scheduler.statistics()
        ready = sum(device.state == "ready" for device in self._devices(statistics))
        devices = 0 if statistics.held_back else ready
        pace = Pace(seconds_per_item(seen.timings), devices, self._settings.open_tasks, self._settings.bundle)
        profiles = await self._profiles({*seen.queue.groups, *(row.group for row in seen.rows)})

        def view() -> tuple[tuple[JobView, ...], Etas]:
            etas = etas_of(seen.queue, profiles, pace)
            return job_views(seen.rows, seen.progress, profiles, pace, etas.by_job), etas

        if len(seen.rows) + len(seen.queue.waiting) < _FEW:
            return view()
        return await to_thread.run_sync(view)

    async def _profiles(self, groups: Iterable[str]) -> Mapping[str, Profile]:
        return {group: await self._store.profile_of(group) for group in groups}

    async def jobs(self, choice: JobChoice, limit: int, after: int | None) -> JobPage:
        """The first `limit` jobs of `choice` after the cursor `after`: the open ones, then the ended, newest first."""
        seen = await self._store.page(choice, limit + 1, after)
        return page_view(seen, choice, limit, (await self._views(seen))[0])

    async def job(self, job: int) -> JobView | None:
        """One job, or None if it is unknown."""
        try:
            return (await self._views(await self._store.overview_of(job)))[0][0]
        except InputError as error:
            if error.code == "unknown_job":
                return None
            raise

    async def _ordered(self, job: int) -> JobView:
        """The job after an order: without an ETA, which takes a look at every open job."""
        row = await self._store.job(job)
        if row is None:
            raise unknown_job(job)
        pace = Pace(seconds_per_item(await self._store.timings()))
        return job_views([row], await self._store.progress_of([job]), await self._profiles([row.group]), pace)[0]

    async def funnel(self, job: int | None) -> Funnel:
        """How captions narrowed to samples."""
        return funnel_view(await self._store.funnel(job))

    async def problems(self, job: int, limit: int, after: int) -> ProblemPage | None:
        """Records of the job's file without a usable caption, or None if the job is unknown."""
        row = await self._store.job(job)
        if row is None:
            return None
        return problem_page(row, await self._store.problems(job, limit, after), after)

    async def change_job(self, job: int, verb: JobVerb) -> JobView | None:
        """Pause, resume, cancel or retry a job. Returns None if it is unknown."""
        if await self._store.job(job) is None:
            return None
        await self._change(job, verb)
        return await self._ordered(job)

    async def change_jobs(self, verb: BulkVerb) -> int:
        """Pause, resume or cancel every job of which that can be done; returns how many those were."""
        changed, limit = 0, anyio.CapacityLimiter(_AT_ONCE)

        async def change(job: int) -> None:
            nonlocal changed
            async with limit:
                try:
                    await self._change(job, verb)
                except InputError as error:  # not of this one, or not any more
                    if error.code not in ("wrong_job_state", "unknown_job"):
                        raise
                else:
                    changed += 1

        jobs, _ = await self._store.open_jobs()
        async with anyio.create_task_group() as group:
            for job in sorted(jobs):
                group.start_soon(change, job)
        return changed

    async def _change(self, job: int, verb: JobVerb) -> None:
        match verb:
            case "retry":
                await self._store.retry(job)
            case "resume":
                await self._store.resume(job)
            case "pause":
                await self._store.pause(job)
            case "cancel":
                await self._store.cancel(job)
                self._scheduler.forget(await self._store.of_job(job, self._scheduler.held))
                await self._cleanup.mark_job(job)
        self._scheduler.wake()

    async def submit(
        self, name: str, body: AsyncIterator[bytes], profile: str | None, priority: int, field: str
    ) -> JobView:
        """Store the body as a caption file and read it into a job. Raises InputError and ConfigurationError."""
        chosen = await to_thread.run_sync(self._fit_profile, profile) if profile else None
        row = await self._inbox.submit(name, body, chosen, priority, field)
        self._scheduler.wake()
        return await self._ordered(row.id)

    async def refilter(self, profile: str, job: int | None, paint: bool) -> Refiltered:
        """Bring captions that ended, of one job or all, under a profile. Raises InputError and ConfigurationError."""
        chosen = await to_thread.run_sync(self._fit_profile, profile)
        done = await refilter(self._store, chosen, job, paint=paint)
        self._scheduler.wake()
        for made in done.jobs:
            await self._cleanup.mark_job(made.job)
        return done

    def _fit_profile(self, name: str) -> Profile:
        """The profile called `name`; reads files. Raises ConfigurationError where it cannot work here."""
        profile = load_profile(name)
        held = {role for device in self._fleet.views({}) for role in device.roles}
        check_agreement(profile, load_bundle(self._settings.bundle), held)
        return profile

    async def failures(self, job: int | None) -> dict[str, int]:
        """How many items have failed and can be retried, by reason."""
        if job is not None and await self._store.job(job) is None:
            raise unknown_job(job)
        return await self._store.failures(job)

    async def retry(self, job: int | None, reason: str | None) -> int:
        """Try failed items again, optionally of one job or reason; returns how many."""
        count = await self._store.retry(job, reason)
        self._scheduler.wake()
        return count

    async def set_paused(self, paused: bool) -> None:
        """Pause or resume dispatch; the store remembers it across restarts."""
        await self._store.set_paused(paused)
        if paused:
            self._scheduler.pause(PAUSED)
        else:
            self._scheduler.resume(PAUSED)

    async def explain(self, item: int) -> dict[str, Any] | None:
        """Everything known about one caption, or None if the item is unknown."""
        try:
            story = await self._store.item_story(item)
        except InputError as error:
            if error.code == "unknown_item":
                return None
            raise
        return story_view(story, await self._cleanup.gone(story.item))
