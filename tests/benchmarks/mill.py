"""The real scheduler over a real store, with devices that answer at once: what is left is what recording costs."""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import cast
from unittest.mock import patch

import anyio

from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.daemon.store_work import StoreWork
from imgdiffd.fleet.device import DeviceProcess
from imgdiffd.fleet.wire import Done
from imgdiffd.method.messages import StageInput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Role, Stage
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.store import Store, connection
from tests.fakes.answers import PROFILE, answers, captions
from tests.fakes.store_driver import submit

DEVICES = 4
_LOOK_S = 0.01
CHUNK = 1000  # captions a transaction, as the inbox brings them


class Instant:
    """A device whose batches take no time; every filter lets what it answers through, the dearest way to the end."""

    alive = True

    def __init__(self) -> None:
        self.results = 0
        self.first = anyio.Event()

    async def run(self, _: Stage, profile: Profile, inputs: Sequence[StageInput], deadline_s: float) -> Done:
        """As `DeviceProcess.run`."""
        self.first.set()
        self.results += len(inputs)
        await anyio.lowlevel.checkpoint()
        return Done(0, tuple(answers(inputs, passes=True)), 0.001)


@dataclass(frozen=True, slots=True)
class Milled:
    """What it took until nothing was left; `cpu_s` of all threads."""

    results: int
    wall_s: float
    cpu_s: float


class Mill:
    """A scheduler over `store` whose devices are instant; `results` counts what they answered so far."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._devices = {f"instant:{number}": Instant() for number in range(DEVICES)}
        work = StoreWork(store, cast(dict[str, DeviceProcess], self._devices), DiskGuard(folder, 0.0))
        self.scheduler = Scheduler(work)
        for name in self._devices:
            self.scheduler.device_up(name, frozenset(Role))

    @property
    def results(self) -> int:
        """Answered so far."""
        return sum(device.results for device in self._devices.values())

    async def first_dispatch(self) -> None:
        """Run until a device has got something."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.scheduler.run)
            for device in self._devices.values():
                group.start_soon(self._cancel_after, device.first, group.cancel_scope)

    @staticmethod
    async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
        await event.wait()
        scope.cancel()

    async def run(self, enough: Callable[["Mill"], bool] = lambda mill: False) -> Milled:
        """Run until nothing is left or it is `enough`; what is under way then is recorded too."""
        began, cpu_s = time.perf_counter(), _cpu_s()
        async with anyio.create_task_group() as group:
            group.start_soon(self.scheduler.run)
            group.start_soon(self._drain_when, enough)
            await self.scheduler.wait_idle()
            group.cancel_scope.cancel()
        return Milled(self.results, time.perf_counter() - began, _cpu_s() - cpu_s)

    async def _drain_when(self, enough: Callable[["Mill"], bool]) -> None:
        while not enough(self):
            await anyio.sleep(_LOOK_S)
        await self.scheduler.drain()


async def first_dispatch_s(folder: Path) -> float:
    """Open the database of `folder` as the daemon does; the seconds until a device has its first batch."""
    began = time.perf_counter()
    async with Store.open(folder / "state.db") as store:
        await store.drop_unread_jobs()
        await Mill(store, folder).first_dispatch()
        return time.perf_counter() - began


def forget_cached(folder: Path) -> None:
    """Have the kernel drop what it holds of the files in `folder`, as after a restart of the machine."""
    for file in folder.iterdir():
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _cpu_s() -> float:
    used = getrusage(RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def fill(store: Store, count: int, start: int = 1) -> None:
    """A job of so many captions, as they are numbered from `start`; all READY."""
    if count <= CHUNK:
        await submit(store, captions(count, start), name=f"from-{start}")
        return
    job = await store.add_job(f"from-{start}", "/inbox/captions", f"{start:064x}", PROFILE)
    for first in range(start, start + count, CHUNK):
        await store.add_captions(job.id, captions(min(CHUNK, start + count - first), first))
    await store.finish_reading(job.id)


@contextmanager
def statements_counted() -> Iterator[Counter[str]]:
    """Counts the statements of every connection made inside, by their first word.

    Each trigger that a statement sets off counts as that statement once more.
    """
    counted: Counter[str] = Counter()
    configure = connection.configure

    def note(statement: str) -> None:
        if not statement.startswith("--"):
            counted[statement.split(None, 1)[0].upper()] += 1

    def traced(raw: sqlite3.Connection, *, writer: bool) -> None:
        configure(raw, writer=writer)
        raw.set_trace_callback(note)

    with patch.object(connection, "configure", traced):
        yield counted
