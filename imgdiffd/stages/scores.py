"""Raw scores from model outputs: cosines of unit vectors, and the rule that only finite scores are stored."""

import math

from torch import Tensor

from imgdiffd.method.messages import Scores


def cosines(first: Tensor, second: Tensor) -> list[float]:
    """The cosine of each pair of rows of two [n, d] tensors of unit vectors.

    One product per row: the order of a batched sum depends on the batch's shape, and mates must not change a digit.
    """
    return [float(row1 @ row2) for row1, row2 in zip(first.double().cpu(), second.double().cpu(), strict=True)]


def put(scores: Scores, key: str, value: float | None) -> None:
    """Store `value` if it is finite. Otherwise the score stays missing, and a missing score never passes a filter."""
    if value is not None and math.isfinite(value):
        scores[key] = value


def best(values: list[float]) -> float | None:
    """The largest finite value; None without any."""
    return max((value for value in values if math.isfinite(value)), default=None)
