"""What a batch costs in seconds, learnt while running by stage, group, size and device, and how long it may take."""

import math
from collections import Counter, deque
from collections.abc import Mapping

from imgdiffd.pipeline import STAGES, LaneKey, Stage
from imgdiffd.schedulers.cost_table import first_guess_s
from imgdiffd.status import CostView

_WINDOW = 256  # batches remembered per device and stage: p99 of them is the third slowest
_WEIGHT = 0.25  # of the newest measurement in the running mean: follows a clock throttling within a few batches


class _Record:
    """The measurements of one stage and group on one device."""

    def __init__(self, mean_s: Mapping[int, float] | None = None) -> None:
        self.mean_s: dict[int, float] = dict(mean_s or {})
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
        """Of what this process measured; the slowest mean where it has measured nothing yet."""
        if not self.recent_s:
            return max(self.mean_s.values())
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
    """Learnt seconds per stage and group (a lane's key), batch size and device.

    A group not yet seen on a device costs what the other devices take on average; one seen nowhere, what other groups
    of its stage take on this device, or on any; a stage never seen, its first guess for `bundle`. A size not yet seen
    is scaled from the nearest one that was.
    """

    def __init__(
        self, bundle: str = "paper", *, deadline_factor: float = 10.0, deadline_floor_s: float = 120.0
    ) -> None:
        self._first_guess_s = first_guess_s(bundle)
        self.deadline_factor = deadline_factor
        self.deadline_floor_s = deadline_floor_s
        self._records: dict[Stage, dict[tuple[str, str], _Record]] = {stage: {} for stage in STAGES}  # device, group
        self._overdue: Counter[tuple[str, LaneKey]] = Counter()  # batches killed by their deadline, none having ended

    def record(self, device: str, key: LaneKey, size: int, seconds: float) -> None:
        """A batch of `size` items took `seconds` of the device's time."""
        if size < 1 or seconds < 0:
            raise ValueError(f"a batch of {size} items in {seconds} s is not a measurement")
        stage, group = key
        self._records[stage].setdefault((device, group), _Record()).add(size, seconds)
        self._overdue.pop((device, key), None)

    def expect(self, device: str, key: LaneKey, seconds_by_size: Mapping[int, float]) -> None:
        """Mean seconds from an earlier run stand for measurements until there are some."""
        if not seconds_by_size or not all(size >= 1 and 0 <= s < math.inf for size, s in seconds_by_size.items()):
            raise ValueError(f"{seconds_by_size} are not seconds by batch size")
        stage, group = key
        self._records[stage][device, group] = _Record(seconds_by_size)

    def overdue(self, device: str, key: LaneKey) -> None:
        """A batch was killed by its deadline. Until one has ended there, each such death doubles the next deadline.

        Otherwise a device far slower than the first guess would blame every item.
        """
        self._overdue[device, key] += 1

    def seconds(self, device: str, key: LaneKey, size: int) -> float:
        """The expected seconds of one batch of `size` items."""
        stage, group = key
        records = self._records[stage]
        exact = records.get((device, group))
        if exact is not None:
            return exact.seconds(size)
        if not records:
            return self._first_guess_s[stage] * size
        alike = [record for (_, other), record in records.items() if other == group]
        alike = alike or [record for (other, _), record in records.items() if other == device]
        alike = alike or list(records.values())
        return sum(record.seconds(size) for record in alike) / len(alike)

    def queue_seconds(self, device: str, key: LaneKey, count: int, limit: int) -> float:
        """The expected seconds of `count` queued items, run in batches of at most `limit`."""
        full, rest = divmod(count, limit)
        total = full * self.seconds(device, key, limit) if full else 0.0
        return total + self.seconds(device, key, rest) if rest else total

    def deadline_s(self, device: str, key: LaneKey, size: int) -> float:
        """How long a batch may take before its worker counts as hung: max(factor x p99, floor).

        Before the first measurement on this device the expected seconds or the first guess, whichever is longer, stand
        for p99; so do those of a batch that is larger than any before.
        """
        stage, group = key
        record = self._records[stage].get((device, group))
        if record is not None and record.batches:
            larger_s = record.seconds(size) if size > max(record.mean_s) else 0.0
            return max(self.deadline_factor * max(record.p99_s(), larger_s), self.deadline_floor_s)
        usual_s = max(self.seconds(device, key, size), self._first_guess_s[stage] * size)
        return max(self.deadline_factor * usual_s, self.deadline_floor_s) * 2.0 ** self._overdue[device, key]

    def learnt(self) -> Mapping[str, Mapping[LaneKey, CostView]]:
        """Everything measured so far, by device, then by stage and group."""
        found: dict[str, dict[LaneKey, CostView]] = {}
        for stage, records in self._records.items():
            for (device, group), record in records.items():
                found.setdefault(device, {})[stage, group] = CostView(
                    stage=stage,
                    group=group,
                    batches=record.batches,
                    seconds_by_items=dict(record.mean_s),
                    p99_s=record.p99_s(),
                )
        return found
