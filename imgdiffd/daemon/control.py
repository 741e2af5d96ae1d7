"""Everything the API can see and do, built on the store, the scheduler, the fleet and the inbox."""

import os
import time
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from imgdiffd import __version__
from imgdiffd.api.app import JobVerb
from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.bundles.compatibility import check_agreement
from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.daemon.reload import LiveSettings
from imgdiffd.errors import InputError
from imgdiffd.fleet.supervisor import Fleet
from imgdiffd.inbox import Inbox
from imgdiffd.job import ItemState
from imgdiffd.method.profile import load_profile
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.schedulers.cost_table import FIRST_GUESS_S
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.status import (
    DeviceView,
    Funnel,
    FunnelStep,
    JobView,
    RemovalView,
    StageView,
    Status,
    eta_of,
    stages_of,
    stranded,
)
from imgdiffd.store import FunnelCounts, JobRow, Progress, ProgressOf, Store

PAUSED = "paused by a person"
_NONE = dict.fromkeys(Pipeline, Progress({}, {}, 0))  # for a job without captions
_Stages = dict[Hashable, tuple[StageView, ...]]


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
        self._started = time.monotonic()

    def watch(self, part: "Watched") -> None:
        """Show the problems of this part of the daemon too."""
        self._watched.append(part)

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

    async def _seconds_per_item(self) -> Mapping[Stage, float]:
        seconds: dict[Stage, float] = {}
        items: dict[Stage, int] = {}
        for timing in await self._store.timings():
            seconds[timing.stage] = seconds.get(timing.stage, 0.0) + timing.seconds
            items[timing.stage] = items.get(timing.stage, 0) + timing.items
        return {stage: seconds[stage] / items[stage] for stage in seconds if items[stage]}

    async def jobs(self) -> tuple[JobView, ...]:
        """Every job, newest first."""
        costs = await self._seconds_per_item()
        rows = sorted(await self._store.jobs(), key=lambda row: -row.id)
        progress = await self._store.progress_of([row.id for row in rows])
        stages: _Stages = {}
        return tuple([await self._view(row, progress.get(row.id, _NONE), costs, stages) for row in rows])

    async def job(self, job: int) -> JobView | None:
        """One job, or None if it is unknown."""
        row = await self._store.job(job)
        if row is None:
            return None
        progress = await self._store.progress(job)
        return await self._view(row, progress, await self._seconds_per_item(), {})

    async def _view(
        self,
        row: JobRow,
        counted: ProgressOf,
        costs: Mapping[Stage, float],
        known: _Stages,
    ) -> JobView:
        """`known` caches stages by group and counts, since most of a thousand small jobs have the same."""
        progress = counted[Pipeline.REPLACEMENT]
        key = (row.group, tuple((stage, *states.items()) for stage, states in progress.stages.items()))
        if (stages := known.get(key)) is None:
            counts = {
                stage: {state.value: number for state, number in states.items()}
                for stage, states in progress.stages.items()
            }
            skipped = (await self._store.profile_of(row.group)).skipped_stages
            stages = known[key] = stages_of(counts, costs, skipped)
        return JobView(
            id=row.id,
            name=row.name,
            state=row.state,
            profile=row.profile,
            created_at=row.created_at,
            finished_at=row.finished_at,
            captions=row.total,
            duplicates=row.duplicates,
            problems=row.problems,
            sampled=progress.in_state(ItemState.SAMPLED),
            rejected=progress.in_state(ItemState.REJECTED),
            failed=progress.in_state(ItemState.FAILED),
            cancelled=progress.in_state(ItemState.CANCELLED),
            samples=progress.samples,
            error=row.error or None,
            duplicate_of=row.duplicate_of,
            stages=stages,
            eta_s=eta_of(stages, len(self._fleet.processes), FIRST_GUESS_S),
            removal=_removal(counted[Pipeline.REMOVAL]),
        )

    async def funnel(self, job: int | None) -> Funnel:
        """How captions narrowed to samples."""
        return _funnel(await self._store.funnel(job))

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


def _removal(progress: Progress) -> RemovalView:
    return RemovalView(
        waiting=progress.in_state(ItemState.READY),
        sampled=progress.in_state(ItemState.SAMPLED),
        rejected=progress.in_state(ItemState.REJECTED),
        failed=progress.in_state(ItemState.FAILED),
        cancelled=progress.in_state(ItemState.CANCELLED),
        samples=progress.samples,
    )


def _funnel(row: FunnelCounts) -> Funnel:
    progress, passed = row.progress[Pipeline.REPLACEMENT], row.progress[Pipeline.REPLACEMENT].passed

    def lost(stage: Stage) -> dict[str, int]:
        return dict(progress.lost.get(stage, {}))

    def parts(stage: Stage) -> dict[str, int]:
        return {reason: number for reason, number in row.verdicts.get(stage, {}).items() if reason}

    vetted = FunnelStep(
        name="pairs that look natural", count=row.passed(Stage.VET), base=row.judged(Stage.VET), lost=lost(Stage.VET)
    )
    sampled = progress.in_state(ItemState.SAMPLED)
    steps = (
        FunnelStep(name="captions", count=progress.total, lost=_unread(row)),
        FunnelStep(name="rewritten", count=passed(Stage.REWRITE), lost=lost(Stage.REWRITE)),
        FunnelStep(name="pairs painted", count=passed(Stage.GENERATE), lost=lost(Stage.GENERATE)),
        FunnelStep(name="pairs alike enough", count=passed(Stage.COMPARE), lost=lost(Stage.COMPARE)),
        *((vetted,) if vetted.base or vetted.lost else ()),
        FunnelStep(name="boxes found", count=row.judged(Stage.LOCATE), base=0),
        FunnelStep(name="regions that differ", count=row.passed(Stage.LOCATE), lost=parts(Stage.LOCATE)),
        FunnelStep(name="regions described", count=row.passed(Stage.DESCRIBE), lost=parts(Stage.DESCRIBE)),
        FunnelStep(name="samples", count=progress.samples, lost=parts(Stage.CONTRAST)),
        FunnelStep(name="captions with a sample", count=sampled, base=progress.total),
        *_removal_steps(row),
    )
    return Funnel(steps=steps)


def _removal_steps(row: FunnelCounts) -> tuple[FunnelStep, ...]:
    """The steps of object removal, which starts from the pairs that are alike enough."""
    progress = row.progress[Pipeline.REMOVAL]
    if not progress.total:
        return ()
    alike = row.progress[Pipeline.REPLACEMENT].passed(Stage.COMPARE)
    erased = sum(progress.stages.get(Stage.INSPECT, {}).values())
    tried = progress.total - progress.stages.get(Stage.ERASE, {}).get(ItemState.READY, 0)
    empty = dict(progress.lost.get(Stage.ERASE, {}))
    refused = {reason: number for reason, number in row.verdicts.get(Stage.INSPECT, {}).items() if reason}
    return (
        FunnelStep(name="pairs for object removal", count=progress.total, base=alike),
        FunnelStep(name="pairs with an object erased", count=erased, base=tried, lost=empty),
        FunnelStep(name="objects erased", count=row.passed(Stage.ERASE), base=0),
        FunnelStep(name="removal samples", count=progress.samples, lost=refused),
    )


def _unread(row: FunnelCounts) -> dict[str, int]:
    counts = {"duplicate": row.duplicates, "unreadable": row.problems}
    return {reason: number for reason, number in counts.items() if number}
