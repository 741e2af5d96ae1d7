"""Boxes that overlap: intersection over union, and which box of an overlapping group is kept."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imgdiffd.method.messages import Box
from imgdiffd.method.profile_sections import Bound


def intersection_over_union(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of boxes (n, 4) with as many others, or of one (4,) with all of them; empty unions give 0.

    In continuous coordinates: no extra pixel.
    """
    width = np.minimum(first[..., 2], second[..., 2]) - np.maximum(first[..., 0], second[..., 0])
    height = np.minimum(first[..., 3], second[..., 3]) - np.maximum(first[..., 1], second[..., 1])
    overlap = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = _areas(first) + _areas(second) - overlap
    ratio: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ratio


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    areas: NDArray[np.float64] = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    return areas


def suppress_overlaps(boxes: Sequence[Box], cosines: Sequence[float], bound: Bound) -> list[int]:
    """Indices of the boxes kept, the most different first; of two whose IoU is above `bound`, the more different stays.

    `cosines` are those of each box's two crops. Equal ones keep their order, so every device gives the same answer.
    """
    array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    order = np.argsort(np.asarray(cosines, dtype=np.float64), kind="stable")
    alive = np.ones(len(order), dtype=bool)
    kept: list[int] = []
    for position, index in enumerate(order):
        if not alive[position]:
            continue
        kept.append(int(index))
        if position + 1 == len(order):
            break
        overlaps = intersection_over_union(array[index], array[order[position + 1 :]])
        limit = overlaps >= bound.value if bound.closed else overlaps > bound.value
        alive[position + 1 :] &= ~limit
    return kept
