"""Raw scores out of model outputs: cosines of unit vectors, and the rule that what is not a number is not stored.

It owns nothing but that arithmetic; it does not know thresholds.
"""

import math

from torch import Tensor

from imgdiffd.message import Scores


def cosines(first: Tensor, second: Tensor) -> list[float]:
    """Row by row, of two [n, d] tensors of unit vectors."""
    values: list[float] = (first * second).sum(-1).tolist()
    return values


def put(scores: Scores, key: str, value: float | None) -> None:
    """Store a finite score. Any other stays missing, which no filter counts as "keep"."""
    if value is not None and math.isfinite(value):
        scores[key] = value


def best(values: list[float]) -> float | None:
    """The largest finite value; None where there is none."""
    return max((value for value in values if math.isfinite(value)), default=None)
