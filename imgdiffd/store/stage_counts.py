"""How many of something are in which stage and state, and the sums that every report takes of it.

It owns these sums; it does not know what is counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.pipeline import Stage


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Counts by stage and state; the stage of one that ended is where it ended."""

    stages: Mapping[Stage, Mapping[ItemState, int]]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(sum(states.values()) for states in self.stages.values())

    def in_state(self, state: ItemState) -> int:
        """Those in `state`, whatever their stage."""
        return sum(states.get(state, 0) for states in self.stages.values())
