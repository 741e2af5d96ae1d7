"""Many things on their way through the stages at once: each goes on until it is stopped for the first time."""

import numpy as np

from imgdiffd.choosing.columns import Array
from imgdiffd.choosing.gathering import STAGES, STATES, Reasons
from imgdiffd.job import ItemState
from imgdiffd.pipeline import Stage

WAITS, SAMPLED, REJECTED = (STATES[each] for each in (ItemState.READY, ItemState.SAMPLED, ItemState.REJECTED))


class Course:
    """`stage`, `state` and `reason` of `count` things, as numbers; `state` is -1 of those that still go on."""

    def __init__(self, count: int, reasons: Reasons) -> None:
        self.stage = np.full(count, -1, np.int8)
        self.state = np.full(count, -1, np.int8)
        self.reason = np.zeros(count, np.int16)
        self.reasons = reasons

    @property
    def going(self) -> Array:
        """Which are not stopped yet."""
        found: Array = self.state < 0
        return found

    def wait(self, stage: Stage, which: Array) -> None:
        """Those of `which` that still go on wait for an output of `stage`."""
        self.stop(stage, which, WAITS)

    def reject(self, stage: Stage, which: Array, reason: str) -> None:
        """Those of `which` that still go on are rejected in `stage`."""
        self.stop(stage, which, REJECTED, reason)

    def stop(self, stage: Stage, which: Array, state: int, reason: str = "") -> None:
        """Stop those of `which` that still go on."""
        stopped = self.going & which
        self.stage[stopped] = STAGES[stage]
        self.state[stopped] = state
        self.reason[stopped] = self.reasons.number(reason)
