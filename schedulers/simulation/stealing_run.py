"""The daemon's own scheduler, loop and all, over simulated devices on virtual time.

This stands in for the store and the workers; every decision is `imgdiffd.schedulers.scheduler`'s.
"""

import random
from collections.abc import Collection, Sequence

import anyio
from anyio.abc import TaskGroup

from imgdiffd.errors import WorkerDiedError
from imgdiffd.pipeline import Stage, Task
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.simulation.outcome import Outcome, Tally
from imgdiffd.schedulers.simulation.scenario import BatchCosts, Scenario, SimulatedDevice
from imgdiffd.schedulers.virtual_time import run_virtual
from imgdiffd.schedulers.work import Batch

POLICY = "work stealing"
_GROUP = "simulated"


class _Card:
    """A device that runs one batch after the other until it dies."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device
        self.free_at_s = 0.0
        self.generation = 0
        self.died = anyio.Event()


class SimulatedWork:
    """`Work` without store or processes: captions are numbers, and a batch is a sleep."""

    def __init__(self, scenario: Scenario, costs: BatchCosts) -> None:
        self.tally = Tally({device.name: 0.0 for device in scenario.devices})
        self.ended_s = 0.0
        self.scheduler: Scheduler | None = None
        self.restarts: TaskGroup | None = None
        self.cards = {device.name: _Card(device) for device in scenario.devices}
        self._scenario = scenario
        self._costs = costs
        self._fates = costs.fates
        self._random = random.Random(scenario.seed)
        self._next = 0
        self._painted_on: dict[int, str] = {}

    async def refill(self, room: int, held: Collection[int]) -> Sequence[Task]:
        """The next captions; what is under way never comes back to the store."""
        first, self._next = self._next, min(self._next + room, self._scenario.captions)
        self.tally.began(self._next - first)
        return [Task(item, Stage.REWRITE, 0, _GROUP) for item in range(first, self._next)]

    async def execute(self, device: str, batch: Batch) -> Sequence[Task]:
        """Sleep for the batch's turn and its seconds, then for its recording. Raises WorkerDiedError."""
        card, items = self.cards[device], batch.items
        generation, now_s = card.generation, anyio.current_time()
        begin_s = max(now_s, card.free_at_s)
        away = sum(self._painted_on.get(item, device) != device for item in items)
        seconds = self._costs.seconds(batch.stage, items, away, card.device.speed)
        card.free_at_s = begin_s + seconds
        if begin_s > now_s:
            with anyio.move_on_at(begin_s):
                await card.died.wait()
        if card.generation != generation:
            raise self._death(device, begun=False)
        if self._scenario.failure_rate and self._random.random() < self._scenario.failure_rate:
            await self._die(card, seconds * self._random.random())
        await anyio.sleep_until(begin_s + seconds)
        self.tally.busy_s[device] += seconds
        await anyio.sleep(self._scenario.record_s)
        return self._followups(device, batch)

    async def _die(self, card: _Card, after_s: float) -> None:
        await anyio.sleep(after_s)
        name = card.device.name
        self.tally.busy_s[name] += after_s
        self.tally.deaths += 1
        card.generation += 1
        card.died.set()
        assert self.scheduler is not None
        assert self.restarts is not None
        self.scheduler.device_down(name)
        self.restarts.start_soon(self._restart, card)
        raise self._death(name, begun=True)

    async def _restart(self, card: _Card) -> None:
        await anyio.sleep(self._scenario.restart_s)
        card.died = anyio.Event()
        card.free_at_s = anyio.current_time()
        assert self.scheduler is not None
        self.scheduler.device_up(card.device.name, card.device.roles)

    @staticmethod
    def _death(device: str, *, begun: bool) -> WorkerDiedError:
        error = WorkerDiedError(f"{device} died", device=device)
        error.begun = begun
        return error

    def _followups(self, device: str, batch: Batch) -> list[Task]:
        now_s = anyio.current_time()
        followups: list[Task] = []
        self.tally.batch_sizes[batch.stage][len(batch.tasks)] += 1
        for item in batch.items:
            following = self._fates.following(item, batch.stage)
            if following is None:
                self._painted_on.pop(item, None)
                self.ended_s = now_s
                self.tally.ended_one(sample=batch.stage is Stage.RENDER, now_s=now_s)
                continue
            if batch.stage is not Stage.REWRITE:
                self._painted_on[item] = device  # or read there: it has the images now
            followups.append(Task(item, following, 0, _GROUP))
        self.tally.holds_pairs(len(self._painted_on))
        return followups

    async def record_crashes(self, tasks: Sequence[Task]) -> None:
        """Crashes here are never an item's own fault; nothing is kept."""

    async def quarantine(self, task: Task, cause: str) -> None:
        """The item's workers died three times by chance: it ends without a sample."""
        self._painted_on.pop(task.item, None)
        self.tally.ended_one(sample=False, now_s=anyio.current_time())


def run_stealing(scenario: Scenario, costs: BatchCosts) -> Outcome:
    """What the scenario comes to under the daemon's scheduler."""
    return run_virtual(lambda: _run(scenario, costs))


async def _run(scenario: Scenario, costs: BatchCosts) -> Outcome:
    work = SimulatedWork(scenario, costs)
    scheduler = work.scheduler = Scheduler(work, max_open=scenario.max_open)
    async with anyio.create_task_group() as group:
        work.restarts = group
        group.start_soon(scheduler.run)
        for device in scenario.devices:
            scheduler.device_up(device.name, device.roles)
        await scheduler.wait_idle()
        group.cancel_scope.cancel()
    return work.tally.outcome(POLICY, work.ended_s, costs.bound_s(scenario.devices), scheduler.statistics().steals)
