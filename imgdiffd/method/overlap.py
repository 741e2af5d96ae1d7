"""Boxes that overlap: intersection over union, and which box of an overlapping group is kept."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imgdiffd.method.messages import Box
from imgdiffd.method.profile_sections import Bound


def intersection_over_union(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of one box (4,) with others (n, 4), in continuous coordinates: no extra pixel. Empty unions give 0."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    overlap = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    areas = np.maximum(others[:, 2] - others[:, 0], 0.0) * np.maximum(others[:, 3] - others[:, 1], 0.0)
    union = max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0) + areas - overlap
    ratio: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return ratio


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
