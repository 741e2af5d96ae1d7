"""What is simulated: devices, what each caption will come to, and what a batch costs. Every assumption stands here."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from imgdiffd.pipeline import STAGES, Role, Stage, stage_after
from imgdiffd.schedulers.cost_table import A100, BOXES, CAPTIONS, ITEMS_PER_CAPTION, SAMPLES, SIMILAR, CostTable
from imgdiffd.schedulers.stealing import leaving_price_s

_MOST_BOXES = 5  # of a pair, by the method's own bound
ALL_ROLES = frozenset(Role)

# Early abort: the step of the preview and the share finished anyway, as profiles have them by default; the share of
# failing pairs whose preview gives them away, which only a calibration tells; and what a side may lose of the others.
ABORT_AT, FINISHED_ANYWAY, LOST = 0.4, 0.03, 0.005
SIMULATED = tuple(stage for stage in Stage if stage in ITEMS_PER_CAPTION)
_SKIPPED = frozenset(Stage) - frozenset(SIMULATED)  # stages that a profile may add

# The part of a full batch's seconds that a batch of one pays too, estimated: language models read all their weights
# for every token (26 GB of a 13B model at 2 TB/s are 13 ms), whatever the batch; painting keeps a card busy by itself.
FIXED_SHARE = {
    Stage.REWRITE: 0.2,
    Stage.GENERATE: 0.03,
    Stage.COMPARE: 0.3,
    Stage.LOCATE: 0.1,
    Stage.DESCRIBE: 0.25,
    Stage.CONTRAST: 0.5,
    Stage.RENDER: 0.0,
}


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """A card with the models of `roles`, `speed` times as fast as the cost table's."""

    name: str
    roles: frozenset[Role] = ALL_ROLES
    speed: float = 1.0

    def holds(self, stage: Stage) -> bool:
        """Whether every model that the stage needs is resident."""
        return STAGES[stage].roles <= self.roles


@dataclass(frozen=True)
class Scenario:
    """One run. `failure_rate` is the share of batches whose worker dies in them; a restart takes `restart_s`.

    `record_s` passes between the end of a batch and its results being recorded, in which the device may already work
    on another. `max_open` bounds the captions under way, where a policy keeps to a bound. With early abort, the share
    `caught` of the pairs that would fail the similarity gate is given up half-painted.
    """

    devices: tuple[SimulatedDevice, ...]
    captions: int = CAPTIONS
    table: CostTable = A100
    failure_rate: float = 0.0
    restart_s: float = 90.0
    record_s: float = 0.02
    max_open: int = 512
    seed: int = 1
    caught: float = 0.0


def equal_devices(count: int) -> tuple[SimulatedDevice, ...]:
    """`count` cards that hold every model."""
    return tuple(SimulatedDevice(f"cuda:{number}") for number in range(count))


def mixed_devices(count: int) -> tuple[SimulatedDevice, ...]:
    """`count` cards that all paint and filter; the first half captions, the next one rewrites.

    On one card everything is together; on two the second rewrites.
    """
    if count == 1:
        return equal_devices(1)
    every = ALL_ROLES - {Role.CAPTIONER, Role.REWRITER}
    half = max(1, count // 2)
    added = [
        {Role.CAPTIONER} if number < half else {Role.REWRITER} if number == half else set() for number in range(count)
    ]
    return tuple(SimulatedDevice(f"cuda:{number}", every | more) for number, more in enumerate(added))


class Fates:
    """What each caption will come to, drawn once from the seed, so that every policy has the same work to do.

    A caption's pair is similar enough or not; a similar one has up to five boxes, each of which ends as a sample or
    not. The shares are the paper's: 38,533 similar pairs, 117,779 boxes and 12,688 samples of 118,000. With early abort
    the share `caught` of the others is given up, and so are a few similar ones.
    """

    def __init__(self, captions: int, seed: int, caught: float = 0.0) -> None:
        draw = random.Random(seed).random
        similar, box, sample = SIMILAR / CAPTIONS, BOXES / SIMILAR / _MOST_BOXES, SAMPLES / BOXES
        self.similar = [draw() < similar for _ in range(captions)]
        self.boxes = [sum(draw() < box for _ in range(_MOST_BOXES)) if passed else 0 for passed in self.similar]
        self.samples = [sum(draw() < sample for _ in range(count)) for count in self.boxes]
        beyond = [(1 - FINISHED_ANYWAY) * (LOST if passed else caught) if caught else 0.0 for passed in self.similar]
        self.given_up = [draw() < share for share in beyond]

    def following(self, item: int, stage: Stage) -> Stage | None:
        """The stage that the item enters after `stage`; None where it ends there."""
        if stage is Stage.GENERATE and self.given_up[item]:
            return None
        if stage is Stage.COMPARE and not self.similar[item]:
            return None
        if stage is Stage.LOCATE and not self.boxes[item]:
            return None
        if stage is Stage.DESCRIBE and not self.samples[item]:
            return None
        return stage_after(stage, _SKIPPED)

    def weight(self, item: int, stage: Stage) -> float:
        """How many of the cost table's items the item stands for in a stage: regions and samples differ in number.

        A pair that is given up costs its part of the steps; its preview and the images that it does not become are not
        counted.
        """
        if stage is Stage.GENERATE and self.given_up[item]:
            return ABORT_AT
        if stage is Stage.DESCRIBE:
            return self.boxes[item] * SIMILAR / BOXES
        if stage in (Stage.CONTRAST, Stage.RENDER):
            return self.samples[item]
        return 1.0


class BatchCosts:
    """Seconds of a batch of n items on a card: fixed + n × per item, over the card's speed.

    A full batch of average items costs what the table says, so that the table's total is the least possible work.
    """

    def __init__(self, scenario: Scenario, fates: Fates) -> None:
        self.fates = fates
        self._fixed_s: dict[Stage, float] = {}
        self._item_s: dict[Stage, float] = {}
        self._floor_s: dict[Stage, float] = {}
        counts: dict[Stage, int] = dict.fromkeys(SIMULATED, 0)
        weights: dict[Stage, float] = dict.fromkeys(SIMULATED, 0.0)
        for item in range(scenario.captions):
            stage: Stage | None = Stage.REWRITE
            while stage:
                counts[stage] += 1
                weights[stage] += fates.weight(item, stage)
                stage = fates.following(item, stage)
        for stage, count in counts.items():
            seconds, share = scenario.table.seconds_per_item[stage], FIXED_SHARE[stage]
            mean = weights[stage] / count if count else 1.0
            self._fixed_s[stage] = share * seconds * mean * STAGES[stage].batch_limit
            self._item_s[stage] = (1 - share) * seconds
            self._floor_s[stage] = seconds * weights[stage]

    def seconds(self, stage: Stage, items: Sequence[int], away: int, speed: float) -> float:
        """The device's seconds; `away` of the items have their images on another card, to be read from disk."""
        weight = sum(self.fates.weight(item, stage) for item in items)
        return (self._fixed_s[stage] + weight * self._item_s[stage]) / speed + leaving_price_s(stage, away)

    def bound_s(self, devices: Sequence[SimulatedDevice]) -> float:
        """The least time any policy needs: every batch full, nothing read twice, and work spread as evenly as can be.

        That is the optimum of the linear program that shares each stage's seconds among the devices that hold its
        models: by the max-flow min-cut theorem, the largest ratio of the work of some stages to the speed of all
        devices that can do any of it. With every model everywhere it is all work / all devices.
        """
        stages = [stage for stage in SIMULATED if self._floor_s[stage] > 0]
        sets = (some for size in range(1, len(stages) + 1) for some in combinations(stages, size))
        return max((self._least_s(some, devices) for some in sets), default=0.0)

    def _least_s(self, stages: Sequence[Stage], devices: Sequence[SimulatedDevice]) -> float:
        speed = sum(device.speed for device in devices if any(device.holds(stage) for stage in stages))
        work_s = sum(self._floor_s[stage] for stage in stages)
        return work_s / speed if speed else math.inf

    def share(self, stage: Stage) -> float:
        """The stage's part of all seconds."""
        return self._floor_s[stage] / sum(self._floor_s.values())
