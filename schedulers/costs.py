"""What a batch costs in seconds, learnt while running, by stage, size and device.

It owns the estimates and the deadlines that follow from them; it does not know queues, nor how time is measured.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from imgdiffd.pipeline import STAGES, Stage

_WINDOW = 256  # batches remembered per device and stage: p99 of them is the third slowest
_WEIGHT = 0.25  # of the newest measurement in the running mean: follows a clock throttling within a few batches


@dataclass(frozen=True, slots=True)
class StageCost:
    """What was learnt of a stage on a device: mean seconds by batch size, and the 99th percentile of all batches."""

    seconds_by_size: Mapping[int, float]
    batches: int
    p99_s: float


class _Record:
    """The measurements of one stage on one device."""

    def __init__(self) -> None:
        self.mean_s: dict[int, float] = {}
        self.recent_s: deque[float] = deque(maxlen=_WINDOW)
        self.batches = 0
        self._p99_s: float | None = None

    def add(self, size: int, seconds: float) -> None:
        known = self.mean_s.get(size)
        self.mean_s[size] = seconds if known is None else known + _WEIGHT * (seconds - known)
        self.recent_s.append(seconds)
        self.batches += 1
        self._p99_s = None

    def p99_s(self) -> float:
        if self._p99_s is None:
            ordered = sorted(self.recent_s)
            self._p99_s = ordered[math.ceil(0.99 * len(ordered)) - 1]
        return self._p99_s

    def seconds(self, size: int) -> float:
        known = self.mean_s.get(size)
        if known is not None:
            return known
        nearest = min(self.mean_s, key=lambda other: (abs(other - size), other))
        return self.mean_s[nearest] * size / nearest


class Costs:
    """Learnt seconds per stage, batch size and device.

    A stage not yet seen on a device costs what the other devices take on average; one seen nowhere, its first guess
    in `STAGES`. Sizes not yet seen are scaled from the nearest one that was.
    """

    def __init__(self, *, deadline_factor: float = 10.0, deadline_floor_s: float = 120.0) -> None:
        self.deadline_factor = deadline_factor
        self.deadline_floor_s = deadline_floor_s
        self._records: dict[Stage, dict[str, _Record]] = {stage: {} for stage in STAGES}

    def record(self, device: str, stage: Stage, size: int, seconds: float) -> None:
        """A batch of `size` items took `seconds` of the device's time."""
        if size < 1 or seconds < 0:
            raise ValueError(f"a batch of {size} items in {seconds} s is no measurement")
        self._records[stage].setdefault(device, _Record()).add(size, seconds)

    def known(self, device: str, stage: Stage) -> bool:
        """Whether the stage was measured on this device."""
        return device in self._records[stage]

    def seconds(self, device: str, stage: Stage, size: int) -> float:
        """The expected seconds of one batch of `size` items."""
        records = self._records[stage]
        if device in records:
            return records[device].seconds(size)
        if records:
            return sum(record.seconds(size) for record in records.values()) / len(records)
        return STAGES[stage].cost_s * size

    def queue_seconds(self, device: str, stage: Stage, count: int, limit: int) -> float:
        """The expected seconds of `count` queued items, run in batches of at most `limit`."""
        full, rest = divmod(count, limit)
        total = full * self.seconds(device, stage, limit) if full else 0.0
        return total + self.seconds(device, stage, rest) if rest else total

    def deadline_s(self, device: str, stage: Stage, size: int) -> float:
        """How long a batch may take before its worker counts as hung: max(factor x p99, floor).

        Before the first measurement on this device the expected seconds stand for p99.
        """
        record = self._records[stage].get(device)
        usual_s = record.p99_s() if record else self.seconds(device, stage, size)
        return max(self.deadline_factor * usual_s, self.deadline_floor_s)

    def learnt(self) -> Mapping[str, Mapping[Stage, StageCost]]:
        """Everything measured so far, by device and stage."""
        found: dict[str, dict[Stage, StageCost]] = {}
        for stage, records in self._records.items():
            for device, record in records.items():
                cost = StageCost(dict(record.mean_s), record.batches, record.p99_s())
                found.setdefault(device, {})[stage] = cost
        return found
