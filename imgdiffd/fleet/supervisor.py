"""Keeps one worker process per device running: starts it, replaces it, and parks a device that does not start."""

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio

from imgdiffd.errors import ConfigurationError, DeviceStartError
from imgdiffd.fleet.cards import CPU, VISIBLE
from imgdiffd.fleet.device import DeviceProcess
from imgdiffd.fleet.member import Member
from imgdiffd.fleet.wire import Done, Ready, Start
from imgdiffd.pipeline import STAGES, Role, Stage
from imgdiffd.settings import AttentionChoice, CompileChoice
from imgdiffd.status import DeviceView

_log = logging.getLogger(__name__)

_MOVE_GRACE_S = 600.0  # for the batch under way on a device that is to hold other models

Roles = Mapping[str, Sequence[Role]]  # what each device holds, by its name


class Observer(Protocol):
    """Is told what workers report of their memory."""

    def note_ready(self, ready: Ready) -> None:
        """A worker's models are resident."""

    def note_done(self, stage: Stage, done: Done) -> None:
        """A batch was answered."""


def compiles(choice: CompileChoice, place: str) -> bool:
    """Whether the models of a device at `place` are compiled: "auto" and "max-autotune" mean on GPUs."""
    return choice if isinstance(choice, bool) else place != CPU


def threads_for(workers: int, configured: int) -> int:
    """The threads, and the compilers, of one worker: as configured, else its share of this process's cores."""
    return configured or max(1, len(os.sched_getaffinity(0)) // workers)


class Fleet:
    """All devices of the daemon (name to "cpu" or a card's UUID), each with a worker that sees this device alone.

    `run` supervises them until cancelled; the caller ends their workers with `stop`.
    `roles` says what each holds. When parking a device leaves a stage that none can run, `replan` is asked what the
    others are to hold; it may raise ConfigurationError, and then `problems` says which stage cannot run.
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
        self._members: dict[str, Member] = {}
        self._needed = frozenset(role for held in roles.values() for role in held)
        self._observer = observer
        self._replan = replan
        self._unplaced = ""
        self._closing = False
        cores = threads_for(len(devices), threads)
        for name, place in devices.items():
            held = tuple(role.value for role in roles[name])
            compiled = compiles(compile, place)
            cache = str(compile_cache) if compiled and compile_cache is not None else ""
            device, visible = (CPU, "") if place == CPU else ("cuda:0", place)  # a worker sees its own card only
            tuned = compiled and compile == "max-autotune"
            start = Start(bundle, device, held, str(images), cores, compiled, attention, cache, tuned)
            process = DeviceProcess(name, start, command=command, environment={VISIBLE: visible})
            member = Member(process, tuple(roles[name]))
            member.device.on_done = partial(self._note_done, member)
            member.device.on_loading = partial(setattr, member, "detail")
            self._members[name] = member

    @property
    def processes(self) -> Mapping[str, DeviceProcess]:
        """The devices by name."""
        return {name: member.device for name, member in self._members.items()}

    def problems(self) -> tuple[str, ...]:
        """A sentence for each stage that no device can run, and one for why its models found no other place."""
        held = [member.roles for member in self._members.values() if not member.parked]
        found = [
            f"{spec.stage}: no device holds {', '.join(sorted(spec.roles))}"
            for spec in STAGES.values()
            if spec.roles <= self._needed and not any(spec.roles <= set(roles) for roles in held)
        ]
        return (*found, self._unplaced) if found and self._unplaced else tuple(found)

    def _note_done(self, member: Member, stage: Stage, done: Done) -> None:
        member.note_done(done)
        if self._observer is not None:
            self._observer.note_done(stage, done)

    async def run(self, up: Callable[[str, frozenset[Role]], None], down: Callable[[str], None]) -> None:
        """Supervise every device; `up` and `down` tell the scheduler. Returns once closed and all have ended."""
        async with anyio.create_task_group() as group:
            for name, member in self._members.items():
                group.start_soon(self._supervise, name, member, up, down)

    async def _supervise(
        self, name: str, member: Member, up: Callable[[str, frozenset[Role]], None], down: Callable[[str], None]
    ) -> None:
        while not self._closing:
            member.moving = False
            try:
                ready = await member.device.start()
            except DeviceStartError as error:
                await self._after_failed_start(name, member, error)
                continue
            member.note_ready(ready)
            if self._observer is not None:
                self._observer.note_ready(ready)
            _log.info("%s ready, process %s, holds %s", name, member.device.pid, ", ".join(member.roles))
            up(name, frozenset(member.roles))
            await member.device.wait_dead()
            down(name)
            if self._closing:
                member.state, member.detail = "stopped", member.device.exit_reason
            elif member.moving:
                member.state, member.detail = "restarting", "to hold other models"
            else:
                wait_s = member.note_ended()
                _log.warning("%s: the worker ended (%s); starting another", name, member.detail)
                await anyio.sleep(wait_s)

    async def _after_failed_start(self, name: str, member: Member, error: DeviceStartError) -> None:
        """Wait until another start may be tried, for ever where the device is parked."""
        if member.moving or self._closing:
            return
        wait_s = member.note_start_failed(error)
        if member.parked:
            _log.error("%s parked: %s", name, error)
            await self._take_over()
            await anyio.sleep_forever()
        _log.warning("%s did not start: %s", name, error)
        await anyio.sleep(wait_s)

    async def _take_over(self) -> None:
        """Have the other devices hold what only parked ones held; those that must change are restarted."""
        parked = [name for name, member in self._members.items() if member.parked]
        if self._replan is None or not self.problems() or len(parked) == len(self._members):
            return
        try:
            roles = self._replan(parked)
        except ConfigurationError as error:
            self._unplaced = str(error)
            _log.error("no other device can hold the models of %s: %s", ", ".join(parked), error)
            return
        async with anyio.create_task_group() as group:
            for name, held in roles.items():
                member = self._members[name]
                if set(member.roles) != set(held):
                    _log.warning("%s is restarted to hold %s", name, ", ".join(held))
                    member.roles, member.moving = tuple(held), True
                    member.device.hold(held)
                    group.start_soon(member.device.stop, _MOVE_GRACE_S)

    def close(self) -> None:
        """Start no more workers: those that run may end, and are not replaced."""
        self._closing = True

    async def stop(self, grace_s: float) -> None:
        """Ask every worker to end, and kill those that still run after `grace_s`."""
        async with anyio.create_task_group() as group:
            for member in self._members.values():
                group.start_soon(member.device.stop, grace_s)
                member.state = "stopped"

    def views(self, load: Mapping[str, tuple[int, int, float]]) -> tuple[DeviceView, ...]:
        """What to show; `load` gives the running batches, queued items and busy seconds of each device."""
        return tuple(member.view(*load.get(name, (0, 0, 0.0))) for name, member in self._members.items())
