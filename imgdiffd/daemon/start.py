"""The start before the database is open: waiting for room on the disk, and what is said meanwhile."""

import logging
import os
import signal

import anyio

from imgdiffd import __version__
from imgdiffd.daemon.disk import CHECK_S, DiskGuard
from imgdiffd.daemon.notify import Notifier
from imgdiffd.settings import Settings
from imgdiffd.status import Status

_log = logging.getLogger(__name__)


def starting_status(settings: Settings, disk: DiskGuard) -> Status:
    """What can be said before the database is open."""
    return Status(
        version=__version__,
        pid=os.getpid(),
        uptime_s=0.0,
        ready=False,
        paused=False,
        problems=(disk.problem or "the database is being opened",),
        bundle=settings.bundle,
        inbox=str(settings.inbox_folder),
        open_tasks=0,
        steals=0,
        devices=(),
        jobs=(),
        starting=True,
    )


async def has_room(disk: DiskGuard, notifier: Notifier, waits: anyio.Event) -> bool:
    """Wait until there is room to start, having set `waits` if that is not now; False if a signal came first."""
    startable = False

    def say(reason: str) -> None:
        waits.set()
        notifier.delayed(reason, within_s=6 * CHECK_S)

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as group:

            async def leave() -> None:
                number = await anext(aiter(signals))
                _log.info("%s: stopped before the start was over", number.name)
                group.cancel_scope.cancel()

            group.start_soon(leave)
            await disk.wait_startable(say)
            startable = True
            group.cancel_scope.cancel()
    return startable
