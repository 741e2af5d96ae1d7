"""Everything the API can see and do, built on the store, the scheduler, the fleet and the inbox."""

import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from imgdiffd import __version__
from imgdiffd.api.app import JobVerb
from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.bundles.compatibility import check_agreement
from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.daemon.reload import LiveSettings
from imgdiffd.daemon.views import funnel_view, job_views, seconds_per_item
from imgdiffd.errors import InputError
from imgdiffd.fleet.supervisor import Fleet
from imgdiffd.inbox import Inbox
from imgdiffd.method.profile import load_profile
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.status import DeviceView, Funnel, JobView, Status, stranded
from imgdiffd.store import JobRow, ProgressOf, Store

PAUSED = "paused by a person"


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
        self._started = time.monotonic()

    def _all_problems(self, devices: Sequence[DeviceView]) -> tuple[str, ...]:
        problems = [self._disk.problem] if self._disk.problem else []
        if self._inbox.degraded:
            problems.append(f"inbox: {self._inbox.degraded}")
        problems.extend(
            f"{device.name} restarting: {device.detail}" for device in devices if device.state == "restarting"
        )
        if not any(device.state == "ready" for device in devices):
            problems.append("no device is ready")
        problems.extend(self._fleet.problems())
        return tuple(problems)

    async def status(self) -> Status:
        """Everything `imgdiffd status` shows."""
        statistics = self._scheduler.statistics()
        load = {
            device.name: (device.running_items, sum(device.queued.values()), device.busy_s)
            for device in statistics.devices
        }
        devices = self._fleet.views(load)
        problems = self._all_problems(devices)
        jobs = await self.jobs()
        return Status(
            version=__version__,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            ready=not problems,
            paused=await self._store.paused(),
            problems=problems
            + self._live.problems
            + stranded(jobs, devices)
            + tuple(f"{d.name} {d.state}: {d.detail}" for d in devices if d.state == "parked"),
            bundle=self._settings.bundle,
            inbox=str(self._settings.inbox_folder),
            open_tasks=statistics.open,
            steals=statistics.steals,
            devices=devices,
            jobs=jobs,
            scheduler=statistics,
            no_removal=self._no_removal,
        )

    async def _views(self, rows: Sequence[JobRow], progress: Mapping[int, ProgressOf]) -> tuple[JobView, ...]:
        profiles = {group: await self._store.profile_of(group) for group in {row.group for row in rows}}
        costs = seconds_per_item(await self._store.timings())
        return job_views(rows, progress, profiles, costs, len(self._fleet.processes))

    async def jobs(self) -> tuple[JobView, ...]:
        """Every job, newest first."""
        rows = sorted(await self._store.jobs(), key=lambda row: -row.id)
        return await self._views(rows, await self._store.progress_of([row.id for row in rows]))

    async def job(self, job: int) -> JobView | None:
        """One job, or None if it is unknown."""
        row = await self._store.job(job)
        if row is None:
            return None
        return (await self._views([row], await self._store.progress_of([job])))[0]

    async def funnel(self, job: int | None) -> Funnel:
        """How captions narrowed to samples."""
        return funnel_view(await self._store.funnel(job))

    async def change_job(self, job: int, verb: JobVerb) -> JobView | None:
        """Pause, resume, cancel or retry a job. Returns None if it is unknown."""
        if await self._store.job(job) is None:
            return None
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
        return await self.job(job)

    async def submit(self, name: str, body: AsyncIterator[bytes], profile: str | None, priority: int) -> JobView:
        """Store the body as a caption file and read it into a job. Raises InputError and ConfigurationError."""
        chosen = load_profile(profile) if profile else None
        if chosen is not None:
            held = {role for device in self._fleet.views({}) for role in device.roles}
            check_agreement(chosen, load_bundle(self._settings.bundle), held)
        row = await self._inbox.submit(name, body, chosen, priority)
        self._scheduler.wake()
        view = await self.job(row.id)
        assert view is not None  # a job is never deleted after it has been read
        return view

    async def failures(self, job: int | None) -> dict[str, int]:
        """How many items have failed and can be retried, by reason."""
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
        plain = asdict(story)
        plain["profile"] = story.profile.model_dump(mode="json")
        plain["pictures_gone"] = await self._cleanup.gone(story.item)
        return plain
