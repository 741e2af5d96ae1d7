"""How fast a series of readings grows, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

BLOCKS = 12
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18)  # 97.5 % of Student's t, from 1 degree


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth in units an hour; the true one lies within `error` of it 95 times of 100."""

    per_hour: float
    error: float

    @property
    def least(self) -> float:
        """The slowest growth that these readings allow."""
        return self.per_hour - self.error

    @property
    def most(self) -> float:
        """The fastest growth that these readings allow."""
        return self.per_hour + self.error


def blocks(times_s: Sequence[float], values: Sequence[float], count: int = BLOCKS) -> list[tuple[float, float]]:
    """The middle time and the median value of `count` equal spans of time.

    What a running batch adds and gives back goes away in the median, and medians of whole minutes depend on one another
    far less than readings seconds apart, which would make any drift look certain.
    """
    first, span_s = times_s[0], (times_s[-1] - times_s[0]) / count
    parts: list[list[float]] = [[] for _ in range(count)]
    for time_s, value in zip(times_s, values, strict=True):
        parts[min(count - 1, int((time_s - first) / span_s))].append(value)
    return [(first + (number + 0.5) * span_s, median(part)) for number, part in enumerate(parts) if part]


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope:
    """The least-squares line through the blocks of these readings. Raises ValueError with fewer than three blocks."""
    points = blocks(times_s, values) if times_s[-1] > times_s[0] else []
    if len(points) < 3:
        raise ValueError(f"{len(points)} blocks of readings have no slope with an error; measure longer")
    hours = [time_s / 3600 for time_s, _ in points]
    mean_x, mean_y = sum(hours) / len(points), sum(value for _, value in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x in hours)
    per_hour = sum((x - mean_x) * (y - mean_y) for x, (_, y) in zip(hours, points, strict=True)) / spread
    left = sum((y - mean_y - per_hour * (x - mean_x)) ** 2 for x, (_, y) in zip(hours, points, strict=True))
    freedom = len(points) - 2
    return Slope(per_hour, _T[min(freedom, len(_T)) - 1] * math.sqrt(left / freedom / spread))
