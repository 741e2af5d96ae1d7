"""START HERE: the daemon as one task group, and the order in which its parts start and stop.

It owns that order and nothing else; it does not know how any part works.
"""

import logging
import math
import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus

from imgdiffd import __version__, durable
from imgdiffd.api import app as api
from imgdiffd.api import events
from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.bundles.compatibility import check_agreement
from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.daemon.control import PAUSED, DaemonControl
from imgdiffd.daemon.disk import CHECK_S, DiskGuard
from imgdiffd.daemon.learnt_file import Experience
from imgdiffd.daemon.notify import Notifier, tell_progress
from imgdiffd.daemon.reload import LiveSettings
from imgdiffd.daemon.store_work import StoreWork
from imgdiffd.errors import BundleError
from imgdiffd.fleet.footprints import Measurements
from imgdiffd.fleet.planner import Planner, why_no_removal
from imgdiffd.fleet.supervisor import Fleet, names_of, resolve_devices
from imgdiffd.hub import problems
from imgdiffd.inbox import Inbox
from imgdiffd.method.profile import load_profile
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.settings import Settings
from imgdiffd.store import Store

_log = logging.getLogger(__name__)

WORKER_GRACE_S = 10.0
CLOSE_S = 20.0  # what the store may take to close after the workers
SCHEDULER_POLL_S = 5.0


async def _scoped(
    function: Callable[[], Awaitable[None]], *, task_status: TaskStatus[anyio.CancelScope] = anyio.TASK_STATUS_IGNORED
) -> None:
    with anyio.CancelScope() as scope:
        task_status.started(scope)
        await function()


async def _start(group: TaskGroup, name: str, function: Callable[[], Awaitable[None]]) -> anyio.CancelScope:
    """Run `function` in `group`; the scope returned stops just it."""
    scope: anyio.CancelScope = await group.start(partial(_scoped, function), name=name)
    return scope


async def serve(
    settings: Settings, *, command: Sequence[str] | None = None, reread: Callable[[], Settings] | None = None
) -> None:
    """Run the daemon until SIGTERM or SIGINT, then stop in order: intake, admission, drain, abort, store.

    A second signal skips the drain. SIGHUP has the settings read again with `reread`, where that is given. `command`
    replaces the worker process (tests do). Raises ConfigurationError before anything was started when it could not
    work.
    """
    bundle = load_bundle(settings.bundle)
    if command is None and (missing := problems(bundle)):
        raise BundleError(f"bundle {settings.bundle}: {missing[0]}", hint="`imgdiffd check` lists all that is wrong")
    profile = load_profile(settings.profile or bundle.profile)
    check_agreement(profile, bundle)
    devices = names_of(resolve_devices(settings.devices))
    images = settings.state_folder / "pictures"
    for folder in (settings.state_folder, settings.inbox_folder, images):
        folder.mkdir(parents=True, exist_ok=True)
    measured = Measurements.of_folder(settings.state_folder)
    planner = Planner(bundle, devices, measured, removal=settings.removal)
    plan = await planner.plan()
    check_agreement(profile, bundle, {role for held in plan.roles.values() for role in held})
    for line in plan.lines():
        _log.info("%s", line)
    if no_removal := why_no_removal(bundle, plan, wanted=settings.removal):
        _log.info("no object removal: %s", no_removal)
    fleet = Fleet(
        devices,
        plan.roles,
        bundle=str(bundle.path),
        images=images,
        threads=settings.threads_per_device,
        compile=settings.compile,
        attention=settings.attention,
        compile_cache=settings.compile_cache_folder,
        command=command,
        observer=planner,
        replan=lambda lost: planner.plan_empty(lost).roles,
    )
    notifier = Notifier()
    disk = DiskGuard(settings.state_folder, settings.min_free_gb)
    await disk.wait_startable(partial(notifier.delayed, within_s=6 * CHECK_S))
    database = settings.state_folder / "state.db"
    bell = events.Bell()
    async with Store.open(database, on_full=disk.note_full, removal=not no_removal, on_commit=bell.ring) as store:
        durable.remove_unfinished(settings.state_folder)
        await store.drop_unread_jobs()
        cleanup = Cleanup(store, images, settings.keep_pictures)
        backfill = partial(disk.retry_while_full, partial(store.backfill_pairs, cleanup.missing))
        scheduler = Scheduler(
            StoreWork(store, fleet.processes, disk, cleanup.mark),
            max_open=settings.open_tasks,
            max_open_bytes=int(settings.open_gb * 1e9),
            in_flight=settings.in_flight,
            poll_s=min(SCHEDULER_POLL_S, (notifier.watchdog_s or math.inf) / 4),
            on_turn=notifier.feed,
        )
        experience = Experience(settings.state_folder, str(bundle.path))
        experience.give(scheduler)
        if await store.paused():
            scheduler.pause(PAUSED)
        inbox = Inbox(settings, store, profile, on_job=scheduler.wake)
        disk.guard(scheduler)
        live = LiveSettings(settings, (inbox.use, disk.use, cleanup.use))
        control = DaemonControl(live, store, scheduler, fleet, inbox, disk, no_removal, cleanup)
        feed = events.Feed(store, control.status, bell)
        app = api.build_app(control, __version__)
        app.include_router(events.routes(feed))
        with api.listening(settings.socket_path) as listener:
            async with anyio.create_task_group() as group:
                running = [
                    await _start(group, "tidy", cleanup.run),
                    *(() if no_removal else [await _start(group, "adopt", backfill)]),
                    await _start(group, "api", partial(api.serve, app, listener)),
                    await _start(group, "disk", disk.run),
                    await _start(group, "scheduler", scheduler.run),
                    await _start(group, "experience", partial(experience.keep, scheduler.learnt)),
                    await _start(group, "fleet", partial(fleet.run, scheduler.device_up, scheduler.device_down)),
                    await _start(group, "progress", partial(tell_progress, notifier, control.status)),
                ]
                if reread is not None:
                    running.append(await _start(group, "reload", partial(live.run, reread)))
                intake = await _start(group, "inbox", inbox.run)
                _log.info("imgdiffd %s serves %s; inbox %s", __version__, settings.socket_path, settings.inbox_folder)
                notifier.ready()
                await _until_stopped(intake, scheduler, fleet, live, notifier)
                await fleet.stop(WORKER_GRACE_S)
                await feed.close()
                for scope in reversed(running):
                    scope.cancel()
    _log.info("stopped")


async def _until_stopped(
    intake: anyio.CancelScope, scheduler: Scheduler, fleet: Fleet, live: LiveSettings, notifier: Notifier
) -> None:
    """Wait for the first signal, then end intake and admission and let running batches finish."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            drain_s = live.settings.drain_s
            _log.info("%s: stopping; running batches have %g s", signal.Signals(number).name, drain_s)
            break
        notifier.stopping(drain_s + WORKER_GRACE_S + CLOSE_S)
        intake.cancel()
        fleet.close()
        with anyio.move_on_after(drain_s) as drain:

            async def hurry() -> None:
                async for number in signals:
                    _log.info("%s again: not waiting", signal.Signals(number).name)
                    drain.cancel()

            async with anyio.create_task_group() as waiting:
                waiting.start_soon(hurry)
                await scheduler.drain()
                waiting.cancel_scope.cancel()
        if drain.cancelled_caught:
            _log.info("running batches were not waited for; they are done again at the next start")
