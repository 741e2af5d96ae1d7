"""A store and devices for the scheduler's tests, on virtual time.

The fake fails the test if an item is on two devices or a result is recorded twice.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import wraps

import anyio

from imgdiffd.errors import WorkerDiedError, WorkError
from imgdiffd.pipeline import DEPTH, Role, Stage, Task, stage_after
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.virtual_time import run_virtual
from imgdiffd.schedulers.work import Batch
from imgdiffd.status import LoadView

ALL_ROLES = frozenset(Role)
Failing = Callable[[str, Batch], WorkError | None]


@dataclass
class Machine:
    """A device that runs batches one at a time, in the order sent, until it dies."""

    name: str
    generation: int = 1
    roles: frozenset[Role] = ALL_ROLES
    alive: bool = True
    reviving: bool = False
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    killed: anyio.Event = field(default_factory=anyio.Event)


@dataclass(frozen=True)
class Ran:
    """A batch that a device ran, and when."""

    device: str
    batch: Batch
    begun_s: float
    ended_s: float


def _one_second(device: str, batch: Batch) -> float:
    return 1.0


def _onward(task: Task) -> Task | None:
    stage = stage_after(task.stage)
    return replace(task, stage=stage, crashes=0) if stage else None


class FakeWork:
    """In-memory `Work`. `failing` returns a batch's error or None, `following` an item's next task.

    With `restart_s` None, a dead device stays down. Without `tells_begun`, a death blames every batch in flight.
    """

    def __init__(
        self,
        tasks: Sequence[Task] = (),
        *,
        seconds: Callable[[str, Batch], float] = _one_second,
        failing: Failing = lambda device, batch: None,
        following: Callable[[Task], Task | None] = _onward,
        refill_s: float = 0.001,
        restart_s: float | None = 5.0,
        tells_begun: bool = True,
    ) -> None:
        self.ready = {task.item: task for task in tasks}
        self.ended: dict[int, str] = {}
        self.causes: dict[int, str] = {}
        self.charged: list[int] = []
        self.ran: list[Ran] = []
        self.refills = 0
        self.most_held = 0
        self.most_in_flight = 0
        self.scheduler: Scheduler | None = None
        self.machines: dict[str, Machine] = {}
        self._seconds = seconds
        self._failing = failing
        self._following = following
        self._refill_s = refill_s
        self._restart_s = restart_s
        self._tells_begun = tells_begun
        self._died = anyio.Event()
        self._executing: dict[int, str] = {}
        self._recorded: set[tuple[int, Stage, int]] = set()

    def add(self, *tasks: Task) -> None:
        """Make these tasks ready."""
        self.ready.update({task.item: task for task in tasks})

    def cancel(self, items: Collection[int]) -> None:
        """Cancel items as the daemon does for a job: first in the rows, then in the scheduler."""
        for item in items:
            if self.ready.pop(item, None):
                self.ended[item] = "cancelled"
        assert self.scheduler is not None
        self.scheduler.forget(items)

    async def refill(self, room: int, held: Collection[int]) -> Sequence[Task]:
        self.refills += 1
        self.most_held = max(self.most_held, len(held))
        found = [task for item, task in self.ready.items() if item not in held]
        await anyio.sleep(self._refill_s)
        return sorted(found, key=lambda task: (task.background, -DEPTH[task.stage], -task.priority, task.item))[:room]

    async def execute(self, device: str, batch: Batch) -> Sequence[Task]:
        assert len({(task.stage, task.group) for task in batch.tasks}) == 1, "a batch mixes stages or groups"
        for task in batch.tasks:
            assert task.item not in self._executing, f"item {task.item} is on {self._executing[task.item]} already"
            self._executing[task.item] = device
        self.most_in_flight = max(self.most_in_flight, sum(where == device for where in self._executing.values()))
        try:
            return await self._run(self.machines[device], batch)
        finally:
            for task in batch.tasks:
                del self._executing[task.item]

    async def _run(self, machine: Machine, batch: Batch) -> Sequence[Task]:
        generation = machine.generation
        async with machine.lock:
            if machine.generation != generation or not machine.alive:
                raise self._death(machine, begun=False)
            begun_s, killed = anyio.current_time(), machine.killed
            with anyio.move_on_after(self._seconds(machine.name, batch)):
                await killed.wait()
            self.ran.append(Ran(machine.name, batch, begun_s, anyio.current_time()))
            if killed.is_set():
                raise self._death(machine, begun=True)
            error = self._failing(machine.name, batch)
            if isinstance(error, WorkerDiedError):
                self.kill(machine.name)
            if error:
                raise error
            return self._record(batch)

    def _record(self, batch: Batch) -> list[Task]:
        followups = []
        for task in batch.tasks:
            row = self.ready.get(task.item)
            if row is None or (row.stage, row.attempt) != (task.stage, task.attempt):
                continue
            key = (task.item, task.stage, task.attempt)
            assert key not in self._recorded, f"{key} is recorded twice"
            self._recorded.add(key)
            following = self._following(row)
            if following is None:
                del self.ready[task.item]
                self.ended[task.item] = "done"
            else:
                self.ready[task.item] = following
                followups.append(following)
        return followups

    def _death(self, machine: Machine, *, begun: bool) -> WorkerDiedError:
        error = WorkerDiedError(f"{machine.name} died", device=machine.name)
        error.begun = begun or not self._tells_begun
        return error

    async def record_crashes(self, tasks: Sequence[Task]) -> None:
        await anyio.sleep(self._refill_s)
        self.charged += [task.item for task in tasks]
        for task in tasks:
            if row := self.ready.get(task.item):
                self.ready[task.item] = replace(row, crashes=row.crashes + 1)
                assert self.ready[task.item].crashes == task.crashes, "the scheduler counts other crashes"

    async def quarantine(self, task: Task, cause: str) -> None:
        await anyio.sleep(self._refill_s)
        if self.ready.pop(task.item, None):
            self.ended[task.item] = "quarantined"
            self.causes[task.item] = cause

    # -- devices

    def up(self, name: str, roles: frozenset[Role] = ALL_ROLES) -> None:
        """Add a device and tell the scheduler that it is ready."""
        self.machines[name] = Machine(name, roles=roles)
        assert self.scheduler is not None
        self.scheduler.device_up(name, roles)

    def kill(self, name: str) -> None:
        """Kill the device's process, and tell the scheduler as a supervisor would."""
        machine = self.machines[name]
        machine.alive = False
        machine.killed.set()
        self._died.set()
        assert self.scheduler is not None
        self.scheduler.device_down(name)

    async def supervise(self) -> None:
        """Restart each dead device after `restart_s`, until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                self._died = anyio.Event()
                for machine in self.machines.values():
                    if not machine.alive and not machine.reviving and self._restart_s is not None:
                        machine.reviving = True
                        group.start_soon(self._revive, machine, self._restart_s)
                await self._died.wait()

    async def _revive(self, machine: Machine, after_s: float) -> None:
        await anyio.sleep(after_s)
        machine.generation += 1
        machine.killed = anyio.Event()
        machine.alive, machine.reviving = True, False
        assert self.scheduler is not None
        self.scheduler.device_up(machine.name, machine.roles)

    # -- what happened

    def sizes(self, stage: Stage) -> list[int]:
        """The sizes of a stage's batches, in the order in which they ended."""
        return [len(ran.batch.tasks) for ran in self.ran if ran.batch.stage is stage]

    def stages(self, device: str) -> list[Stage]:
        """The stages that a device ran, in order."""
        return [ran.batch.stage for ran in self.ran if ran.device == device]


def last_stage(task: Task) -> Task | None:
    """A `following` with which items end after their first stage."""
    return None


def load_of(scheduler: Scheduler, device: str) -> LoadView:
    """One device's load in the scheduler's statistics."""
    return next(load for load in scheduler.statistics().devices if load.name == device)


def tasks(items: range, stage: Stage = Stage.REWRITE, group: str = "g", priority: int = 0) -> list[Task]:
    """A new task in `stage` for each item."""
    return [Task(item, stage, 0, group, priority) for item in items]


@asynccontextmanager
async def running(work: FakeWork, scheduler: Scheduler, *devices: str) -> AsyncIterator[None]:
    """Run the scheduler with these devices, supervised, until the end of the block."""
    work.scheduler = scheduler
    async with anyio.create_task_group() as group:
        for name in devices:
            work.up(name)
        group.start_soon(scheduler.run)
        group.start_soon(work.supervise)
        yield
        group.cancel_scope.cancel()


def on_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an async test on a loop with virtual time; the test fails if it takes a virtual day."""

    async def limited() -> None:
        with anyio.fail_after(86_400.0):
            await test()

    @wraps(test)
    def run() -> None:
        run_virtual(limited)

    return run
