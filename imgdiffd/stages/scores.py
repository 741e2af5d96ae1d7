"""Raw scores out of model outputs: cosines of unit vectors, and the rule that what is not a number is not stored.

It owns nothing but that arithmetic; it does not know thresholds.
"""

import math

from torch import Tensor

from imgdiffd.method.messages import Scores


def cosines(first: Tensor, second: Tensor) -> list[float]:
    """Row by row, of two [n, d] tensors of unit vectors.

    One product a row: a sum over a batch is ordered by the batch's shape, and mates must not move a last digit.
    """
    return [float(row1 @ row2) for row1, row2 in zip(first.double().cpu(), second.double().cpu(), strict=True)]


def put(scores: Scores, key: str, value: float | None) -> None:
    """Store a finite score. Any other stays missing, which no filter counts as "keep"."""
    if value is not None and math.isfinite(value):
        scores[key] = value


def best(values: list[float]) -> float | None:
    """The largest finite value; None where there is none."""
    return max((value for value in values if math.isfinite(value)), default=None)
