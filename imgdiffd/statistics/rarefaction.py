"""What a smaller random part of a dataset would count, so that datasets of different size compare."""

import math
from collections.abc import Iterable


def expected_kinds(samples_with: Iterable[int], total: int, drawn: int) -> float:
    """How many kinds are expected in `drawn` of `total` samples, taken at random without replacement.

    `samples_with` says of each kind in how many of the samples it occurs. A kind in m of them is missed with
    probability C(total - m, drawn) / C(total, drawn) (Hurlbert, 1971): the exact expectation, so nothing is drawn.
    Raises ValueError where more are to be drawn than there are.
    """
    if drawn > total:
        raise ValueError(f"{drawn} samples cannot be drawn from {total}")
    every = _log_choose(total, drawn)
    missed: dict[int, float] = {}
    expected = 0.0
    for m in samples_with:
        if m not in missed:
            missed[m] = math.exp(_log_choose(total - m, drawn) - every) if total - m >= drawn else 0.0
        expected += 1.0 - missed[m]
    return expected


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
