"""The status asked for again and again, over the daemon's own socket, from a thread of its own."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import anyio
import httpx
from anyio import to_thread

from imgdiffd import __version__
from imgdiffd.api import app as api
from imgdiffd.api import connections
from imgdiffd.api.listening import listening
from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.daemon.control import DaemonControl
from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.daemon.reload import LiveSettings
from imgdiffd.fleet.supervisor import Fleet
from imgdiffd.inbox import Inbox
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.settings import Settings
from imgdiffd.store import Store
from tests.fakes.answers import PROFILE

PAUSE_S = 0.1  # between two questions


@dataclass
class Asked:
    """How long each answer took."""

    seconds: list[float] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        """What 99 of 100 answers took at most."""
        return sorted(self.seconds)[math.ceil(0.99 * len(self.seconds)) - 1]


def control_of(store: Store, scheduler: Scheduler, state: Path) -> DaemonControl:
    """What the API shows of these two, of no device and of an inbox that is not run."""
    settings = Settings.model_validate({"state_folder": state})
    fleet = Fleet({}, {}, bundle="", images=state, threads=1, compile=False)
    inbox, disk = Inbox(settings, store, PROFILE), DiskGuard(state, 0.0)
    cleanup = Cleanup(store, state, "all")
    return DaemonControl(LiveSettings(settings, ()), store, scheduler, fleet, inbox, disk, "a benchmark", cleanup)


@asynccontextmanager
async def asking(store: Store, scheduler: Scheduler, state: Path) -> AsyncIterator[Asked]:
    """Serve the API for `store` and `scheduler`; ask for the status as long as the block lasts, at least once."""
    control = control_of(store, scheduler, state)
    asked, enough = Asked(), Event()

    def ask(socket: Path) -> None:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://imgdiffd") as client:
            while True:
                began = time.perf_counter()
                client.get("/status").raise_for_status()
                asked.seconds.append(time.perf_counter() - began)
                if enough.wait(PAUSE_S):
                    return

    with listening(state / "api.sock", {}) as listener:
        async with anyio.create_task_group() as serving:
            serving.start_soon(connections.serve, api.build_app(control, __version__), listener)
            async with anyio.create_task_group() as group:
                group.start_soon(to_thread.run_sync, ask, state / "api.sock")
                yield asked
                enough.set()
            serving.cancel_scope.cancel()
