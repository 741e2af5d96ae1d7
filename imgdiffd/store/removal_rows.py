"""What the store answers about object removal: frozen records.

It owns the names of the fields; it does not know the tables behind them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.method.removal_messages import Erasure, FoundBox, Scores
from imgdiffd.pipeline import Stage
from imgdiffd.store.stage_counts import StageCounts


@dataclass(frozen=True, slots=True)
class RemovalProgress(StageCounts):
    """How many pairs' removals are in which stage and state, why they ended without a sample, and how many came."""

    lost: Mapping[Stage, Mapping[str, int]]
    samples: int


@dataclass(frozen=True, slots=True)
class ErasureRow:
    """An object taken out; texts, scores and images are empty before it was inspected, `reason` is '' while it is in.

    `holder` is the side of the sample that still holds the object, `letter` its answer.
    """

    erasure: Erasure
    text: str
    scores: Scores
    holder: str
    letter: str
    with_image: str
    without_image: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RemovalStory:
    """Everything known of one pair's removal. `found` are all boxes with what was held against each."""

    stage: Stage
    state: ItemState
    attempt: int
    crashes: int
    reason: str
    detail: str
    created_at: float
    updated_at: float
    found: tuple[tuple[FoundBox, str], ...]
    erasures: tuple[ErasureRow, ...]
