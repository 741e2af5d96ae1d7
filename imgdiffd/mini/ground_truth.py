"""Ground truth about an image or a sample: which objects are there, which was replaced, whether a text names it.

Pure functions over captions and detections. What the judge does not see counts as missing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgdiffd.method.overlap import intersection_over_union
from imgdiffd.mini.scene_judge import Detection
from imgdiffd.mini.world import NOUNS, parse_caption

Named = tuple[str, str]  # noun, colour
FloatBox = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Edit:
    """One object of the first caption became another in the second; `others` stayed."""

    old: Named
    new: Named
    others: tuple[Named, ...]


def objects_of(caption: str) -> list[Named] | None:
    """The objects that a caption of the world names; None for any other text."""
    parsed = parse_caption(caption)
    return None if parsed is None else parsed[0]


def edit_of(caption1: str, caption2: str) -> Edit | None:
    """The replacement between two captions; None unless exactly one object changed and the place did not."""
    first, second = parse_caption(caption1), parse_caption(caption2)
    if first is None or second is None or first[1] != second[1] or len(first[0]) != len(second[0]):
        return None
    changed = [(old, new) for old, new in zip(first[0], second[0], strict=True) if old != new]
    if len(changed) != 1:
        return None
    old, new = changed[0]
    return Edit(old, new, tuple(each for each in first[0] if each != old))


def find(detections: Sequence[Detection], named: Named) -> Detection | None:
    """The surest detection of an object with that noun and colour."""
    hits = [each for each in detections if (each.noun, each.colour) == named]
    return max(hits, key=lambda each: each.score, default=None)


def find_all(detections: Sequence[Detection], named: Named) -> tuple[Detection, ...]:
    """Every detection of an object with that noun and colour: the painter sometimes paints an object twice."""
    return tuple(each for each in detections if (each.noun, each.colour) == named)


def seen(detections: Sequence[Detection], wanted: Sequence[Named]) -> int:
    """How many of `wanted` are detected, with the right noun and colour."""
    return sum(find(detections, named) is not None for named in wanted)


def edited(before: Sequence[Detection], after: Sequence[Detection], edit: Edit) -> bool:
    """The new object is in the second image, and the old noun is not, whatever its colour."""
    del before
    return find(after, edit.new) is not None and all(
        each.noun != edit.old[0] or (each.noun, each.colour) in edit.others for each in after
    )


def iou(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    return float(intersection_over_union(np.asarray(box, float), np.asarray([other], float))[0])


def overlap(box: Sequence[float], objects: Sequence[Detection]) -> float:
    """The largest IoU of a box with any of the objects; 0 where there is none."""
    return max((iou(box, each.box) for each in objects), default=0.0)


def holds_replaced(box: Sequence[float], image: int, replaced: Sequence[Sequence[Detection]]) -> bool:
    """Whether a region found in `image` (1 or 2) overlaps that image's replaced object with an IoU of at least 0.5.

    `replaced` are the old object's instances in image 1 and the new one's in image 2.
    """
    return overlap(box, replaced[image - 1]) >= 0.5


def outside(shape: tuple[int, int], boxes: Sequence[FloatBox], grow_px: float = 2.0) -> NDArray[np.bool_]:
    """The pixels (HxW) outside all of the boxes, each grown by `grow_px`."""
    mask = np.ones(shape, dtype=bool)
    for x1, y1, x2, y2 in boxes:
        top, left = max(0, int(np.floor(y1 - grow_px))), max(0, int(np.floor(x1 - grow_px)))
        mask[top : int(np.ceil(y2 + grow_px)), left : int(np.ceil(x2 + grow_px))] = False
    return mask


def change(first: NDArray[np.uint8], second: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """Mean absolute difference of two images, 0–255, over the pixels of `where`."""
    difference = np.abs(first.astype(np.int16) - second.astype(np.int16)).mean(axis=2)
    return float(difference[where].mean()) if where.any() else 0.0


def names(text: str, noun: str) -> bool:
    """Whether a text says `noun` and no other noun of the world."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return noun in words and not (words & set(NOUNS)) - {noun}


def names_both(text: str, nouns: tuple[str, str]) -> bool:
    """Whether a text says both nouns."""
    return set(nouns) <= set(re.findall(r"[a-z]+", text.lower()))
