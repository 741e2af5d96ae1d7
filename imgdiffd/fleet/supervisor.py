"""Keeps one worker process per device running: starts, replaces, and parks what will not start.

It owns the supervision, what is said of each device, and who takes over the models of one that is parked; it does not
know batches, nor how models are placed.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio

from imgdiffd.errors import EXIT_CONFIGURATION, ConfigurationError, DeviceStartError, SettingsError
from imgdiffd.fleet.device import DeviceProcess
from imgdiffd.fleet.wire import Done, Ready, Start
from imgdiffd.pipeline import STAGES, Role, Stage
from imgdiffd.settings import AttentionChoice, CompileChoice
from imgdiffd.status import DeviceView

_log = logging.getLogger(__name__)

PARK_AFTER_FAILURES = 5
PARK_WINDOW_S = 300.0
_BACKOFF_S = (0.0, 1.0, 5.0, 15.0, 30.0)
_FRUITLESS_S = (0.0,) * PARK_AFTER_FAILURES + (1.0, 5.0, 15.0, 60.0, 300.0)  # before the next worker, by those in a row
_MOVE_GRACE_S = 600.0  # for the batch under way on a device that is to hold other models

Roles = Mapping[str, Sequence[Role]]  # what each device holds, by its name


class Observer(Protocol):
    """Told what workers report of their memory."""

    def note_ready(self, ready: Ready) -> None:
        """A worker's models are resident."""

    def note_done(self, stage: Stage, done: Done) -> None:
        """A batch was answered."""


@dataclass
class _Member:
    device: DeviceProcess
    state: str = "starting"
    detail: str = ""
    restarts: int = 0
    failures: deque[float] = field(default_factory=deque)
    worked: bool = False  # the present worker did a batch
    fruitless: int = 0  # workers in a row that started, and ended before they had done any
    roles: tuple[Role, ...] = ()
    moving: bool = False  # its worker is being ended, so that the next one holds other models
    counters: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()

    @property
    def parked(self) -> bool:
        """Whether it was given up."""
        return self.state == "parked"

    def add_notes(self, notes: Iterable[str]) -> None:
        """Keep each note once, and have the log say it."""
        for note in notes:
            if note not in self.notes:
                self.notes += (note,)
                _log.warning("%s: %s", self.device.name, note)


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


def names_of(devices: Sequence[str]) -> dict[str, str]:
    """Every configured device by a name of its own: "cpu#0" and "cpu#1" where there are two of a kind."""
    repeated = {device for device in devices if devices.count(device) > 1}
    return {f"{device}#{n}" if device in repeated else device: device for n, device in enumerate(devices)}


def compiles(choice: CompileChoice, device: str) -> bool:
    """Whether the models on `device` are compiled: "auto" means on GPUs."""
    return device != "cpu" if choice == "auto" else choice


def threads_for(devices: Sequence[str], configured: int) -> int:
    """Threads of one worker: as configured, else the cores that this process may use shared among CPU devices."""
    if configured:
        return configured
    cpus = sum(name.startswith("cpu") for name in devices)
    return max(1, len(os.sched_getaffinity(0)) // cpus) if cpus else 0


class Fleet:
    """All devices of the daemon. `run` supervises until cancelled; the caller stops the processes with `stop`.

    `roles` says what each holds. Where a parked device leaves a stage without any, `replan` is asked for the roles of
    the others; it may raise ConfigurationError, and then `problems` says which stage cannot run.
    """

    def __init__(
        self,
        devices: Mapping[str, str],
        roles: Roles,
        *,
        bundle: str,
        images: Path,
        threads: int,
        compile: CompileChoice,
        attention: AttentionChoice = "auto",
        compile_cache: Path | None = None,
        command: Sequence[str] | None = None,
        observer: Observer | None = None,
        replan: Callable[[Collection[str]], Roles] | None = None,
    ) -> None:
        self._members: dict[str, _Member] = {}
        self._needed = frozenset(role for held in roles.values() for role in held)
        self._observer = observer
        self._replan = replan
        self._unplaced = ""
        self._closing = False
        cores = threads_for(list(devices.values()), threads)
        for name, device in devices.items():
            held = tuple(role.value for role in roles[name])
            compiled = compiles(compile, device)
            cache = str(compile_cache) if compiled and compile_cache is not None else ""
            start = Start(bundle, device, held, str(images), cores, compiled, attention, cache)
            member = _Member(DeviceProcess(name, start, command=command), roles=tuple(roles[name]))
            member.device.on_done = partial(self._note_done, member)
            member.device.on_loading = partial(setattr, member, "detail")
            self._members[name] = member

    @property
    def processes(self) -> Mapping[str, DeviceProcess]:
        """Every device's process by name."""
        return {name: member.device for name, member in self._members.items()}

    def problems(self) -> tuple[str, ...]:
        """A sentence for each stage that no device can run, and for a failed try to place its models anew."""
        held = [member.roles for member in self._members.values() if not member.parked]
        found = [
            f"{spec.stage}: no device holds {', '.join(sorted(spec.roles))}"
            for spec in STAGES.values()
            if spec.roles <= self._needed and not any(spec.roles <= set(roles) for roles in held)
        ]
        return (*found, self._unplaced) if found and self._unplaced else tuple(found)

    def _note_done(self, member: _Member, stage: Stage, done: Done) -> None:
        member.worked = True
        member.counters.update(done.counters)
        member.add_notes(done.notes)
        if self._observer is not None:
            self._observer.note_done(stage, done)

    async def run(self, up: Callable[[str, frozenset[Role]], None], down: Callable[[str], None]) -> None:
        """Supervise every device; `up` and `down` tell the scheduler. Returns when cancelled, or closed and ended."""
        async with anyio.create_task_group() as group:
            for name, member in self._members.items():
                group.start_soon(self._supervise, name, member, up, down)

    async def _supervise(
        self, name: str, member: _Member, up: Callable[[str, frozenset[Role]], None], down: Callable[[str], None]
    ) -> None:
        while not self._closing:
            member.moving = False
            try:
                ready = await member.device.start()
            except DeviceStartError as error:
                if member.moving or self._closing:
                    continue
                if self._note_failure(member, error):
                    _log.error("%s parked: %s", name, error)
                    await self._take_over()
                    await anyio.sleep_forever()
                _log.warning("%s did not start: %s", name, error)
                await anyio.sleep(_BACKOFF_S[min(len(member.failures), len(_BACKOFF_S) - 1)])
                continue
            member.state, member.detail, member.notes = "ready", "", ()  # a new worker, new notes
            member.worked = False
            member.add_notes(ready.notes)
            if self._observer is not None:
                self._observer.note_ready(ready)
            _log.info("%s ready, process %s, holds %s", name, member.device.pid, ", ".join(member.roles))
            up(name, frozenset(member.roles))
            await member.device.wait_dead()
            down(name)
            if self._closing:
                member.state, member.detail = "stopped", member.device.exit_reason
                continue
            if member.moving:
                member.state, member.detail = "restarting", "to hold other models"
                continue
            member.state, member.detail = "restarting", member.device.exit_reason
            member.restarts += 1
            member.fruitless = 0 if member.worked else member.fruitless + 1
            wait_s = _FRUITLESS_S[min(member.fruitless, len(_FRUITLESS_S) - 1)]
            if wait_s:
                member.detail += f"; the last {member.fruitless} workers did no batch, the next starts in {wait_s:g} s"
            _log.warning("%s: worker ended (%s); starting another", name, member.detail)
            await anyio.sleep(wait_s)

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

    async def _take_over(self) -> None:
        """Have the devices that are left hold what only parked ones held; those that must change start anew."""
        parked = [name for name, member in self._members.items() if member.parked]
        if self._replan is None or not self.problems() or len(parked) == len(self._members):
            return
        try:
            roles = self._replan(parked)
        except ConfigurationError as error:
            self._unplaced = str(error)
            _log.error("what %s held has no other place: %s", ", ".join(parked), error)
            return
        async with anyio.create_task_group() as group:
            for name, held in roles.items():
                member = self._members[name]
                if set(member.roles) != set(held):
                    _log.warning("%s starts anew, to hold %s", name, ", ".join(held))
                    member.roles, member.moving = tuple(held), True
                    member.device.hold(held)
                    group.start_soon(member.device.stop, _MOVE_GRACE_S)

    def close(self) -> None:
        """Start no worker from now on: what runs may end, and is not replaced."""
        self._closing = True

    async def stop(self, grace_s: float) -> None:
        """End every process: its pipe is closed, and what still runs after `grace_s` is killed."""
        async with anyio.create_task_group() as group:
            for member in self._members.values():
                group.start_soon(member.device.stop, grace_s)
                member.state = "stopped"

    def views(self, load: Mapping[str, tuple[int, int, float]]) -> tuple[DeviceView, ...]:
        """What to show; `load` is running batches, queued items and busy seconds by device."""
        views = []
        for name, member in self._members.items():
            running, queued, busy_s = load.get(name, (0, 0, 0.0))
            pid = member.device.pid if member.device.alive else None
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
                    roles=tuple(role.value for role in member.roles),
                    counters=dict(member.counters),
                    notes=member.notes,
                )
            )
        return tuple(views)
