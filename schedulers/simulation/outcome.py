"""What a simulated run came to, in the same figures for every policy."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from imgdiffd.pipeline import DEPTH, Stage


@dataclass(frozen=True)
class Outcome:
    """One policy's run. `bound_s` is the least time that any could need; `busy_s` are seconds in batches by device."""

    policy: str
    seconds: float
    bound_s: float
    busy_s: Mapping[str, float]
    batch_sizes: Mapping[Stage, Mapping[int, int]]
    steals: int
    deaths: int
    most_open: int  # the most captions under way at once
    most_painted: int  # the most painted pairs under way at once: their images lie on the disk and in caches
    first_sample_s: float

    @property
    def hours(self) -> float:
        """How long the whole run took."""
        return self.seconds / 3600

    @property
    def utilisation(self) -> Mapping[str, float]:
        """The share of the run that each device spent in batches."""
        return {name: busy / self.seconds for name, busy in self.busy_s.items()}

    @property
    def mean_utilisation(self) -> float:
        """The same share, on average over all devices."""
        return sum(self.utilisation.values()) / len(self.busy_s)

    @property
    def over_bound(self) -> float:
        """How much longer than the bound it took, as a share of the bound."""
        return self.seconds / self.bound_s - 1

    def mean_batch(self, stage: Stage) -> float:
        """Items a batch, on average; 0 where there was none."""
        sizes = self.batch_sizes.get(stage, {})
        batches = sum(sizes.values())
        return sum(size * count for size, count in sizes.items()) / batches if batches else 0.0


@dataclass
class Tally:
    """Counts a run while it goes on."""

    busy_s: dict[str, float]
    batch_sizes: dict[Stage, Counter[int]] = field(default_factory=lambda: {stage: Counter() for stage in DEPTH})
    deaths: int = 0
    under_way: int = 0
    most_open: int = 0
    most_painted: int = 0
    ended: int = 0
    first_sample_s: float = float("inf")

    def began(self, items: int) -> None:
        """So many more captions are under way from now on."""
        self.under_way += items
        self.most_open = max(self.most_open, self.under_way)

    def holds_pairs(self, pairs: int) -> None:
        """So many painted pairs are under way now."""
        self.most_painted = max(self.most_painted, pairs)

    def ended_one(self, *, sample: bool, now_s: float) -> None:
        """A caption is through, with or without a sample."""
        self.under_way -= 1
        self.ended += 1
        if sample:
            self.first_sample_s = min(self.first_sample_s, now_s)

    def outcome(self, policy: str, seconds: float, bound_s: float, steals: int = 0) -> Outcome:
        """The record of the whole run."""
        sizes = {stage: dict(counts) for stage, counts in self.batch_sizes.items() if counts}
        return Outcome(
            policy=policy,
            seconds=seconds,
            bound_s=bound_s,
            busy_s=dict(self.busy_s),
            batch_sizes=sizes,
            steals=steals,
            deaths=self.deaths,
            most_open=self.most_open,
            most_painted=self.most_painted,
            first_sample_s=self.first_sample_s,
        )
