"""Three simple ways of sharing the same work, to compare with: a static split, a pool per stage, a central FIFO.

Each is as good as its name allows: a weak comparator would flatter the daemon's scheduler.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

from imgdiffd.pipeline import DEPTH, STAGES, Role, Stage
from imgdiffd.schedulers.simulation.outcome import Outcome, Tally
from imgdiffd.schedulers.simulation.scenario import BatchCosts, Fates, Scenario, SimulatedDevice

_DOWNSTREAM_FIRST = tuple(sorted(DEPTH, key=lambda stage: -DEPTH[stage]))
Lanes = dict[Stage, deque[tuple[int, int]]]  # (when it came, item), the oldest first
Taken = tuple[Stage, list[int]]


def _lanes() -> Lanes:
    return {stage: deque() for stage in DEPTH}


def _take(lanes: Lanes, stage: Stage) -> Taken:
    lane = lanes[stage]
    return stage, [lane.popleft()[1] for _ in range(min(len(lane), STAGES[stage].batch_limit))]


class Policy:
    """Where tasks wait and which a free device takes. Devices go by their place in the scenario."""

    name = ""

    def put(self, stage: Stage, item: int, came: int) -> None:
        """The item waits for this stage."""
        raise NotImplementedError

    def take(self, device: int) -> Taken | None:
        """The device's next batch, or None where it has to wait for others."""
        raise NotImplementedError


def _fullest_downstream(lanes: Lanes, stages: Sequence[Stage]) -> Taken | None:
    """The most downstream full batch, else the most downstream that there is: no device waits beside work."""
    waiting = [stage for stage in stages if lanes[stage]]
    full = (stage for stage in waiting if len(lanes[stage]) >= STAGES[stage].batch_limit)
    chosen = next(full, waiting[0] if waiting else None)
    return _take(lanes, chosen) if chosen else None


class StaticSplit(Policy):
    """Every caption belongs to one device from the start.

    Stages whose models its device lacks belong to one of those that have them, in turn.
    """

    name = "static split"

    def __init__(self, devices: Sequence[SimulatedDevice]) -> None:
        self._lanes = [_lanes() for _ in devices]
        self._holders = {stage: [at for at, one in enumerate(devices) if one.holds(stage)] for stage in DEPTH}

    def put(self, stage: Stage, item: int, came: int) -> None:
        """It waits for its owner, or for the device that has the stage's models in its place."""
        owner, holders = item % len(self._lanes), self._holders[stage]
        if owner not in holders:
            owner = holders[item // len(self._lanes) % len(holders)]
        self._lanes[owner][stage].append((came, item))

    def take(self, device: int) -> Taken | None:
        """A batch of its own items only."""
        return _fullest_downstream(self._lanes[device], _DOWNSTREAM_FIRST)


class PoolPerStage(Policy):
    """Painting has most of the devices, the other stages share the rest; a pool's devices share one queue.

    The pools' sizes follow the cost table as nearly as whole devices allow. A stage that no device of its pool can run
    is served by the first that can.
    """

    name = "pool per stage"

    def __init__(self, devices: Sequence[SimulatedDevice], painting_share: float) -> None:
        painters = [at for at, device in enumerate(devices) if device.holds(Stage.GENERATE)]
        others = len(devices) - min(max(1, round(painting_share * len(devices))), max(1, len(devices) - 1))
        describing_first = sorted(range(len(devices)), key=lambda at: (Role.CAPTIONER not in devices[at].roles, at))
        light = set(describing_first[:others])
        pools = {stage: light if stage is not Stage.GENERATE else set(painters) - light for stage in DEPTH}
        for stage, pool in pools.items():
            able = [at for at, device in enumerate(devices) if device.holds(stage)]
            pools[stage] = pool & set(able) or {able[-1 if stage is Stage.REWRITE else 0]}
        self._stages = [[stage for stage in _DOWNSTREAM_FIRST if at in pools[stage]] for at in range(len(devices))]
        self._queue = _lanes()

    def put(self, stage: Stage, item: int, came: int) -> None:
        """It waits for the stage's pool."""
        self._queue[stage].append((came, item))

    def take(self, device: int) -> Taken | None:
        """A batch of a stage whose pool the device is in."""
        return _fullest_downstream(self._queue, self._stages[device])


class CentralFifo(Policy):
    """One queue: a free device takes the oldest task that it can run, and as many of its stage as fit."""

    name = "central FIFO"

    def __init__(self, devices: Sequence[SimulatedDevice]) -> None:
        self._queue = _lanes()
        self._stages = [[stage for stage in DEPTH if device.holds(stage)] for device in devices]

    def put(self, stage: Stage, item: int, came: int) -> None:
        """It waits at the end of the queue."""
        self._queue[stage].append((came, item))

    def take(self, device: int) -> Taken | None:
        """A batch of the stage whose first item has waited longest."""
        waiting = [stage for stage in self._stages[device] if self._queue[stage]]
        oldest = min(waiting, key=lambda stage: self._queue[stage][0][0], default=None)
        return _take(self._queue, oldest) if oldest else None


class _Run:
    """One policy's run, event by event."""

    def __init__(self, policy: Policy, scenario: Scenario, fates: Fates, costs: BatchCosts) -> None:
        self.tally = Tally({device.name: 0.0 for device in scenario.devices})
        self.now_s = 0.0
        self._policy = policy
        self._scenario = scenario
        self._fates = fates
        self._costs = costs
        self._random = random.Random(scenario.seed)
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._next = 0
        self._free = set(range(len(scenario.devices)))
        self._painted_on: dict[int, int] = {}

    def play(self) -> Outcome:
        """Run until every caption has ended; all policies keep to the scenario's bound of open captions."""
        self._settle()
        while self._events:
            self.now_s, _, happen = heappop(self._events)
            happen()
            self._settle()
        if self.tally.ended != self._scenario.captions:
            raise RuntimeError(f"{self._policy.name}: {self.tally.ended} of {self._scenario.captions} captions ended")
        return self.tally.outcome(self._policy.name, self._last_s, self._costs.bound_s(self._scenario.devices))

    def _at(self, when_s: float, happen: Callable[[], None]) -> None:
        heappush(self._events, (when_s, next(self._order), happen))

    def _settle(self) -> None:
        room = min(self._scenario.max_open - self.tally.under_way, self._scenario.captions - self._next)
        if room * 8 >= min(self._scenario.max_open, self._scenario.captions - self._next) > 0:
            for item in range(self._next, self._next + room):
                self._policy.put(Stage.REWRITE, item, next(self._order))
            self._next += room
            self.tally.began(room)
        for device in sorted(self._free):
            taken = self._policy.take(device)
            if taken:
                self._free.discard(device)
                self._send(device, *taken)

    def _send(self, device: int, stage: Stage, items: list[int]) -> None:
        card = self._scenario.devices[device]
        away = sum(self._painted_on.get(item, device) != device for item in items)
        seconds = self._costs.seconds(stage, items, away, card.speed)
        if self._scenario.failure_rate and self._random.random() < self._scenario.failure_rate:
            after_s = seconds * self._random.random()
            self.tally.deaths += 1
            self.tally.busy_s[card.name] += after_s
            self._at(self.now_s + after_s, lambda: self._put(stage, items))
            self._at(self.now_s + after_s + self._scenario.restart_s, lambda: self._free.add(device))
            return
        self.tally.busy_s[card.name] += seconds
        self.tally.batch_sizes[stage][len(items)] += 1
        self._at(self.now_s + seconds + self._scenario.record_s, lambda: self._done(device, stage, items))

    def _put(self, stage: Stage, items: Sequence[int]) -> None:
        for item in items:
            self._policy.put(stage, item, next(self._order))

    def _done(self, device: int, stage: Stage, items: Sequence[int]) -> None:
        self._free.add(device)
        self._last_s = self.now_s
        for item in items:
            following = self._fates.following(item, stage)
            if following is None:
                self._painted_on.pop(item, None)
                self.tally.ended_one(sample=stage is Stage.RENDER, now_s=self.now_s)
                continue
            if stage is not Stage.REWRITE:
                self._painted_on[item] = device
            self._policy.put(following, item, next(self._order))
        self.tally.holds_pairs(len(self._painted_on))


def run_comparators(scenario: Scenario, fates: Fates, costs: BatchCosts) -> tuple[Outcome, ...]:
    """What the scenario comes to under each of the three."""
    policies = (
        StaticSplit(scenario.devices),
        PoolPerStage(scenario.devices, costs.share(Stage.GENERATE)),
        CentralFifo(scenario.devices),
    )
    return tuple(_Run(policy, scenario, fates, costs).play() for policy in policies)
