"""START HERE: the daemon as one task group, and the order in which its parts start and stop."""

import logging
import math
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from imgdiffd import __version__, durable, heap
from imgdiffd.api import events, looking, refiltering, upkeep
from imgdiffd.api.app import build_app
from imgdiffd.api.connections import serve as serve_api
from imgdiffd.api.listening import listening
from imgdiffd.api.starting import answering
from imgdiffd.bundles.bundle import Bundle
from imgdiffd.daemon.checks import refuse_first
from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.daemon.control import PAUSED, DaemonControl
from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.daemon.ending import Ending, first_order, start
from imgdiffd.daemon.ground import Ground
from imgdiffd.daemon.job_log import JobLog
from imgdiffd.daemon.learnt_file import LearntFile
from imgdiffd.daemon.looking import DaemonLooking
from imgdiffd.daemon.metrics import Metrics
from imgdiffd.daemon.model_files import ModelFiles
from imgdiffd.daemon.moved import SocketKeeper, StateWatch
from imgdiffd.daemon.notify import Notifier, tell_progress
from imgdiffd.daemon.pruning import Pruning
from imgdiffd.daemon.refiltering import bundle_row
from imgdiffd.daemon.reload import LiveSettings
from imgdiffd.daemon.start import has_room, starting_status
from imgdiffd.daemon.store_work import StoreWork
from imgdiffd.fleet.planner import why_no_removal
from imgdiffd.fleet.supervisor import Fleet
from imgdiffd.images.sweep import missing
from imgdiffd.inbox import Inbox
from imgdiffd.method.profile import Profile
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.settings import Settings
from imgdiffd.store import Store

_log = logging.getLogger(__name__)

WORKER_GRACE_S = 10.0
CLOSE_S = 20.0  # time for the store to close after the workers
SCHEDULER_POLL_S = 5.0
GIVE_BACK_S = 30.0


async def _give_back_memory() -> None:
    """Give the holes of the heap back to the system from time to time, until cancelled."""
    while True:
        await anyio.sleep(GIVE_BACK_S)
        await to_thread.run_sync(heap.give_back)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is decided before anything starts. `no_removal` says why there is no object removal, '' if there is."""

    settings: Settings
    bundle: Bundle
    profile: Profile
    database: Path
    images: Path
    fleet: Fleet
    devices: Mapping[str, str]
    no_removal: str


async def _plan(ground: Ground, command: Sequence[str] | None) -> _Plan:
    """What the checks found out, made into a fleet. Raises what the first of them refuses."""
    await refuse_first(ground)
    settings, bundle, planner, placed = ground.settings, ground.bundle, ground.planner, ground.plan
    assert bundle is not None
    assert ground.profile is not None
    assert planner is not None
    assert placed is not None
    for folder in (settings.state_folder, settings.inbox_folder, settings.images):
        folder.mkdir(parents=True, exist_ok=True)
    for line in placed.lines():
        _log.info("%s", line)
    if no_removal := why_no_removal(bundle, placed, wanted=settings.removal):
        _log.info("no object removal: %s", no_removal)
    fleet = Fleet(
        ground.devices,
        placed.roles,
        bundle=str(bundle.path),
        images=settings.images,
        threads=settings.threads_per_device,
        compile=settings.compile,
        attention=settings.attention,
        compile_cache=settings.compile_cache_folder,
        command=command,
        observer=planner,
        replan=lambda lost: planner.plan_empty(lost).roles,
    )
    return _Plan(
        settings, bundle, ground.profile, settings.database, settings.images, fleet, ground.devices, no_removal
    )


class _Parts:
    """Everything that runs beside the store, created but not started."""

    def __init__(
        self, plan: _Plan, store: Store, disk: DiskGuard, notifier: Notifier, bell: events.Bell, listener: socket.socket
    ) -> None:
        settings = plan.settings
        self.fleet, self.disk, self.notifier = plan.fleet, disk, notifier
        self.state = StateWatch(settings.state_folder, plan.images, plan.database)
        self.cleanup = Cleanup(store, plan.images, settings.keep_pictures)
        self.scheduler = Scheduler(
            StoreWork(
                store,
                plan.fleet.processes,
                disk,
                self.cleanup.mark,
                self._wake_background,
                self.state.check,
            ),
            max_open=settings.open_tasks,
            max_open_bytes=int(settings.open_gb * 1e9),
            in_flight=settings.in_flight,
            costs=Costs(plan.bundle.name),
            poll_s=min(SCHEDULER_POLL_S, (notifier.watchdog_s or math.inf) / 4),
            on_turn=notifier.feed,
        )
        disk.guard(self.scheduler)
        self.job_log = JobLog(store, bell)
        self.pruning = Pruning(store, disk, self.cleanup, self.scheduler, settings)
        self.learnt = LearntFile(settings.state_folder, str(plan.bundle.path))
        self.learnt.give(self.scheduler)
        self.inbox = Inbox(settings, store, plan.profile, on_job=self.scheduler.wake)
        self.live = LiveSettings(settings, (self.inbox.use, disk.use, self.cleanup.use, self.pruning.use))
        self.control = DaemonControl(
            self.live, store, self.scheduler, plan.fleet, self.inbox, disk, plan.no_removal, self.cleanup
        )
        self.feed = events.Feed(store, self.control.status, bell)
        app = build_app(self.control, __version__)
        app.include_router(events.routes(self.feed))
        app.include_router(looking.routes(DaemonLooking(store, plan.images, self.cleanup)))
        app.include_router(refiltering.routes(self.control.refilter))
        app.include_router(upkeep.routes(self.pruning))
        app.include_router(upkeep.previews_route(store.previews))
        app.include_router(upkeep.metrics_route(Metrics(store, self.control.status, plan.devices, plan.database).text))
        self.socket = SocketKeeper(listener, partial(serve_api, app), self.state)
        self.control.watch(self.socket)
        self.models = ModelFiles(plan.bundle)
        self.control.watch(self.models, hinders=False)
        backfill = partial(disk.retry_while_full, partial(store.backfill_pairs, self.cleanup.missing))
        self._backfill = None if plan.no_removal else backfill

    def _wake_background(self) -> None:
        self.scheduler.wake_background()  # which does not exist yet when its work is made

    def tasks(self, reread: Callable[[], Settings] | None) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """The daemon's tasks by name, in starting order; only the inbox starts later."""
        yield "state", self.state.run
        yield "cleanup", self.cleanup.run
        if self._backfill is not None:
            yield "backfill", self._backfill
        yield "api", self.socket.run
        yield "disk", self.disk.run
        yield "memory", _give_back_memory
        yield "models", self.models.run
        yield "pruning", self.pruning.run
        yield "scheduler", self.scheduler.run
        yield "learnt", partial(self.learnt.keep, self.scheduler.learnt)
        yield "fleet", partial(self.fleet.run, self.scheduler.device_up, self.scheduler.device_down)
        yield "job log", self.job_log.run
        yield "progress", partial(tell_progress, self.notifier, self.control.status)
        if reread is not None:
            yield "reload", partial(self.live.run, reread)


async def serve(
    settings: Settings,
    *,
    file: Path | None = None,
    command: Sequence[str] | None = None,
    reread: Callable[[], Settings] | None = None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT, then stop in order: intake, admission, drain, abort, store.

    A second signal skips the drain. On SIGHUP, `reread` reads the settings again, which came from `file`. Tests replace
    the worker process with `command`. Raises ImgdiffdError before anything starts if the daemon could not work, and
    after an orderly stop the error that made it impossible to go on.
    """
    plan = await _plan(Ground(settings, file, starting=True, models=command is None), command)
    notifier = Notifier()
    disk = DiskGuard(settings.state_folder, settings.min_free_gb)
    bell, ending = events.Bell(), Ending()
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listening(settings.socket_path))
        waits = anyio.Event()
        look = partial(starting_status, settings, disk)
        started = await stack.enter_async_context(answering(listener, look, waits))
        if not await has_room(disk, notifier, waits):
            return
        with notifier.delaying("opening the database"):
            opened = partial(_opened, plan, disk, bell, ending)
            store = await disk.retry_while_full(lambda: stack.enter_async_context(opened()))
        durable.remove_unfinished(settings.state_folder)
        await disk.retry_while_full(store.drop_unread_jobs)
        again = await disk.retry_while_full(partial(store.repaint_missing, partial(missing, plan.images)))
        if again:
            _log.warning("images: %d waiting pairs have lost their images and are painted again", again)
        parts = _Parts(plan, store, disk, notifier, bell, listener)
        if await store.paused():
            parts.scheduler.pause(PAUSED)
        await started()
        async with anyio.create_task_group() as group:
            # Before anybody is answered: whoever sees the daemon answer may stop it in order.
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                running = {name: await start(group, name, function, ending) for name, function in parts.tasks(reread)}
                intake = await start(group, "inbox", parts.inbox.run, ending)
                _log.info("imgdiffd %s serves %s; inbox %s", __version__, settings.socket_path, settings.inbox_folder)
                notifier.ready()
                await _until_stopped(signals, intake, parts, ending)
            if ending.error is not None:
                running["scheduler"].cancel()  # what still comes is not recorded
            await plan.fleet.stop(WORKER_GRACE_S)
            await parts.feed.close()
            for scope in reversed(running.values()):
                scope.cancel()
        if ending.error is not None:
            raise ending.error
    _log.info("stopped")


def _opened(plan: _Plan, disk: DiskGuard, bell: events.Bell, ending: Ending) -> AbstractAsyncContextManager[Store]:
    return Store.open(
        plan.database,
        on_full=disk.note_full,
        removal=not plan.no_removal,
        bundle=plan.bundle.painting,
        models=bundle_row(plan.bundle),
        images=plan.images,
        on_commit=bell.ring,
        on_damage=ending.because,
    )


async def _until_stopped(
    signals: AsyncIterator[signal.Signals], intake: anyio.CancelScope, parts: _Parts, ending: Ending
) -> None:
    """Wait for the first signal, then end intake and admission and let running batches finish.

    Running batches get no time if the daemon has to end without a signal.
    """
    number = await first_order(signals, ending)
    drain_s = 0.0 if number is None else parts.live.settings.drain_s
    if number is not None:
        _log.info("%s: stopping; running batches have %g s", number.name, drain_s)
    parts.notifier.stopping(drain_s + WORKER_GRACE_S + CLOSE_S)
    intake.cancel()
    parts.fleet.close()
    if number is None:
        return
    with anyio.move_on_after(drain_s) as drain:

        async def hurry() -> None:
            async for number in signals:
                _log.info("%s again: not waiting for running batches", signal.Signals(number).name)
                drain.cancel()

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(hurry)
            await parts.scheduler.drain()
            waiting.cancel_scope.cancel()
    if drain.cancelled_caught:
        _log.info("did not wait for running batches; they run again at the next start")
