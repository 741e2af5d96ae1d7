"""Keeps one worker process per device running: starts, replaces, and parks what will not start.

It owns the supervision and what is said of each device; it does not know batches.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from imgdiffd.device import DeviceProcess
from imgdiffd.errors import EXIT_CONFIGURATION, DeviceStartError, SettingsError
from imgdiffd.pipeline import OPTIONAL_ROLES, Role
from imgdiffd.settings import AttentionChoice
from imgdiffd.status import DeviceView
from imgdiffd.wire import Done, Start

_log = logging.getLogger(__name__)

PARK_AFTER_FAILURES = 5
PARK_WINDOW_S = 300.0
_BACKOFF_S = (0.0, 1.0, 5.0, 15.0, 30.0)


@dataclass
class _Member:
    process: DeviceProcess
    state: str = "starting"
    detail: str = ""
    restarts: int = 0
    failures: deque[float] = field(default_factory=deque)
    roles: tuple[str, ...] = ()
    counters: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()

    def note_done(self, done: Done) -> None:
        """Keep what a worker said beside its results."""
        self.counters.update(done.counters)
        self.add_notes(done.notes)

    def add_notes(self, notes: Iterable[str]) -> None:
        """Keep each note once, and have the log say it."""
        for note in notes:
            if note not in self.notes:
                self.notes += (note,)
                _log.warning("%s: %s", self.process.name, note)


def resolve_devices(devices: Sequence[str], gpus: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """`devices` as configured, with "auto" as one entry per NVIDIA GPU that the driver lists.

    Raises SettingsError where "auto" finds none: a CPU is far too slow to be taken without being named.
    """
    if tuple(devices) != ("auto",):
        return tuple(devices)
    count = len(list(gpus.iterdir())) if gpus.is_dir() else 0
    if not count:
        raise SettingsError(
            f'devices = "auto": no NVIDIA GPU in {gpus}', hint='load the driver, or set devices = ["cpu"] to try it out'
        )
    return tuple(f"cuda:{number}" for number in range(count))


def threads_for(devices: Sequence[str], configured: int) -> int:
    """Threads of one worker: as configured, else the cores that this process may use shared among CPU devices."""
    if configured:
        return configured
    cpus = sum(name.startswith("cpu") for name in devices)
    return max(1, len(os.sched_getaffinity(0)) // cpus) if cpus else 0


class Fleet:
    """All devices of the daemon. `run` supervises until cancelled; the caller stops the processes with `stop`."""

    def __init__(
        self,
        devices: Sequence[str],
        *,
        bundle: str,
        pictures: Path,
        threads: int,
        compile: bool,
        attention: AttentionChoice = "auto",
        compile_cache: Path | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._members: dict[str, _Member] = {}
        roles = tuple(role.value for role in Role if role not in OPTIONAL_ROLES)
        for number, device in enumerate(devices):
            # Several workers may share a device kind ("cpu", "cpu"): the name must still be its own.
            name = f"{device}#{number}" if devices.count(device) > 1 else device
            start = Start(bundle, device, roles, str(pictures), threads_for(devices, threads), compile)
            cache = str(compile_cache) if compile and compile_cache is not None else ""
            start = replace(start, attention=attention, compile_cache=cache)
            member = _Member(DeviceProcess(name, start, command=command))
            member.roles = roles
            member.process.on_done = member.note_done
            member.process.on_loading = self._loading(member)
            self._members[name] = member

    @property
    def processes(self) -> Mapping[str, DeviceProcess]:
        """Every device's process by name."""
        return {name: member.process for name, member in self._members.items()}

    @staticmethod
    def _loading(member: _Member) -> Callable[[str], None]:
        def note(what: str) -> None:
            member.detail = what

        return note

    async def run(self, up: Callable[[str, frozenset[Role]], None], down: Callable[[str], None]) -> None:
        """Supervise every device; `up` and `down` tell the scheduler. Returns only when cancelled."""
        async with anyio.create_task_group() as group:
            for name, member in self._members.items():
                group.start_soon(self._supervise, name, member, up, down)

    async def _supervise(
        self, name: str, member: _Member, up: Callable[[str, frozenset[Role]], None], down: Callable[[str], None]
    ) -> None:
        while True:
            try:
                ready = await member.process.start()
            except DeviceStartError as error:
                if self._note_failure(member, error):
                    _log.error("%s parked: %s", name, error)
                    await anyio.sleep_forever()
                _log.warning("%s did not start: %s", name, error)
                await anyio.sleep(_BACKOFF_S[min(len(member.failures), len(_BACKOFF_S) - 1)])
                continue
            member.state, member.detail, member.notes = "ready", "", ()  # a new worker, new notes
            member.add_notes(ready.notes)
            _log.info("%s ready, process %s", name, member.process.pid)
            up(name, frozenset(Role) - OPTIONAL_ROLES)
            await member.process.wait_dead()
            down(name)
            member.state, member.detail = "restarting", member.process.last_words
            member.restarts += 1
            _log.warning("%s: worker ended (%s); starting another", name, member.process.last_words)

    def _note_failure(self, member: _Member, error: DeviceStartError) -> bool:
        """Whether the device is to be parked now."""
        now = anyio.current_time()
        member.failures.append(now)
        while member.failures[0] < now - PARK_WINDOW_S:
            member.failures.popleft()
        parked = len(member.failures) >= PARK_AFTER_FAILURES or error.exit_status == EXIT_CONFIGURATION
        member.state = "parked" if parked else "restarting"
        member.detail = str(error)
        return parked

    async def stop(self, grace_s: float) -> None:
        """End every process: its pipe is closed, and what still runs after `grace_s` is killed."""
        async with anyio.create_task_group() as group:
            for member in self._members.values():
                group.start_soon(member.process.stop, grace_s)
                member.state = "stopped"

    def views(self, load: Mapping[str, tuple[int, int, float]]) -> tuple[DeviceView, ...]:
        """What to show; `load` is running batches, queued items and busy seconds by device."""
        views = []
        for name, member in self._members.items():
            running, queued, busy_s = load.get(name, (0, 0, 0.0))
            pid = member.process.pid if member.process.alive else None
            views.append(
                DeviceView(
                    name=name,
                    state=member.state,
                    detail=member.detail,
                    pid=pid,
                    restarts=member.restarts,
                    running=running,
                    queued=queued,
                    busy_s=busy_s,
                    roles=member.roles,
                    counters=dict(member.counters),
                    notes=member.notes,
                )
            )
        return tuple(views)
