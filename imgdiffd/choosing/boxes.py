"""`choose_regions` for the boxes of all pairs at once: the same verdicts as `imgdiffd.method.filters` one by one."""

from dataclasses import dataclass

import numpy as np

from imgdiffd.choosing.columns import Array, Columns, scores
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, noun_key
from imgdiffd.method.overlap import intersection_over_union
from imgdiffd.method.profile_sections import Bound, Locate

# What is held against a box; a verdict is a place in here.
BOX_REASONS = (
    "",
    "box_degenerate",
    "box_too_small",
    "box_too_large",
    "score_missing",
    "crops_too_similar",
    "no_object_in_box",
    "overlaps_more_different_box",
    "overlaps_earlier_box",
    "beyond_overlap_limit",
    "beyond_region_limit",
)
CODES = {reason: number for number, reason in enumerate(BOX_REASONS)}


@dataclass(frozen=True, slots=True)
class BoxChoice:
    """A verdict for every box, and the rows of the boxes chosen, those of each pair in the order of the regions."""

    verdicts: Array
    chosen: Array


def is_below(values: Array, bound: Bound) -> Array:
    """`Bound.below` of each value."""
    return values <= bound.value if bound.closed else values < bound.value


def is_above(values: Array, bound: Bound) -> Array:
    """`Bound.above` of each value."""
    return values >= bound.value if bound.closed else values > bound.value


def choose_boxes(columns: Columns, locate: Locate) -> BoxChoice:
    """What `filters.choose_regions` says of the boxes of every pair."""
    owners = columns.box_owners
    verdicts = _judge_alone(columns, locate)
    passed = np.flatnonzero(verdicts == 0)
    if locate.overlap_keeps == "most_different":
        cosines = scores(columns.boxes, CLIP_IMAGE_COSINE)[passed]
        passed = passed[np.lexsort((cosines, owners[passed]))]  # stable, as in `suppress_overlaps`
        lost = CODES["overlaps_more_different_box"]
    else:
        lost = CODES["overlaps_earlier_box"]
    chosen = suppress(columns.boxes["box"], owners, passed, locate.overlap_iou)
    verdicts[passed] = lost
    verdicts[chosen] = 0
    chosen = _limit(chosen, owners, locate.overlap_limit, verdicts, "beyond_overlap_limit")
    if locate.area_test == "last":
        found = verdicts[chosen]
        _judge_areas(found, columns.boxes["share"][chosen], locate)
        verdicts[chosen] = found
        chosen = chosen[found == 0]
    chosen = _limit(chosen, owners, locate.regions, verdicts, "beyond_region_limit")
    return BoxChoice(verdicts, chosen)


def _judge_alone(columns: Columns, locate: Locate) -> Array:
    """What `filters.judge_box` says of every box: the first of its tests that fails is judged last here."""
    cosines, share = scores(columns.boxes, CLIP_IMAGE_COSINE), columns.boxes["share"]
    nouns = noun_scores(columns, locate)
    verdicts = np.zeros(len(share), dtype=np.int8)
    np.copyto(verdicts, CODES["no_object_in_box"], where=~is_above(nouns, locate.noun_above))
    np.copyto(verdicts, CODES["score_missing"], where=np.isnan(nouns))
    np.copyto(verdicts, CODES["crops_too_similar"], where=~is_below(cosines, locate.crop_cosine_below))
    np.copyto(verdicts, CODES["score_missing"], where=np.isnan(cosines))
    if locate.area_test == "first":
        _judge_areas(verdicts, share, locate)
    np.copyto(verdicts, CODES["box_degenerate"], where=np.isnan(share))
    return verdicts


def _judge_areas(verdicts: Array, share: Array, locate: Locate) -> None:
    """Note what `filters.judge_area` has against boxes of these shares of their images."""
    np.copyto(verdicts, CODES["box_too_large"], where=share > locate.max_area)
    np.copyto(verdicts, CODES["box_too_small"], where=share < locate.min_area)


def noun_scores(columns: Columns, locate: Locate) -> Array:
    """The score of each box that `filters.judge_nouns` decides by; NaN where that is missing."""
    first, second = (scores(columns.boxes, noun_key(locate.noun_kind, side)) for side in (1, 2))
    found: Array = np.fmax(first, second) if locate.noun_rule == "any" else np.minimum(first, second)
    return found


def lacking_scores(columns: Columns, choice: BoxChoice, locate: Locate) -> Array:
    """The rows of boxes about which a score would have to decide that was never made, or was not finite."""
    cosines = scores(columns.boxes, CLIP_IMAGE_COSINE)
    nouns = [scores(columns.boxes, noun_key(locate.noun_kind, side)) for side in (1, 2)]
    rows = np.flatnonzero(np.isnan(cosines) | np.isnan(nouns[0]) | np.isnan(nouns[1]))
    verdicts, owners = choice.verdicts[rows], columns.box_owners[rows]
    asked = verdicts != CODES["box_degenerate"]
    if locate.area_test == "first":
        asked &= (verdicts != CODES["box_too_small"]) & (verdicts != CODES["box_too_large"])
    missing = np.isnan(cosines[rows])
    differs = is_below(cosines[rows], locate.crop_cosine_below)
    for side in (1, 2):
        missing |= differs & np.isnan(nouns[side - 1][rows]) & columns.items[f"nouns{side}"][owners]
    lacking: Array = rows[asked & missing]
    return lacking


def suppress(boxes: Array, owners: Array, rows: Array, bound: Bound) -> Array:
    """Those of the boxes at `rows` that `overlap.suppress_overlaps` keeps, each owner's in the order given.

    The rows of an owner stand together. In each round the first box left of every owner is kept, and what overlaps it
    falls: exactly the greedy rule, for all owners at once.
    """
    kept = np.zeros(len(rows), dtype=bool)
    left, owner, edges = np.arange(len(rows)), owners[rows], np.ascontiguousarray(boxes[rows].T)
    while len(left):
        begins = np.concatenate(([True], owner[1:] != owner[:-1]))
        kept[left[begins]] = True
        rest = np.flatnonzero(~begins)
        heads = np.take(edges[:, begins], (np.cumsum(begins) - 1)[rest], axis=1)
        others = np.take(edges, rest, axis=1)
        stay = rest[~_overlap(heads, others, bound)]
        left, owner, edges = left[stay], owner[stay], np.take(edges, stay, axis=1)
    return rows[kept]


def _overlap(first: Array, second: Array, bound: Bound) -> Array:
    """Whether the IoU of each two boxes, edges by rows, is above `bound`; it is 0 of the many that do not meet."""
    found = np.full(first.shape[1], is_above(np.zeros(1), bound)[0])
    meet = (np.minimum(first[2], second[2]) > np.maximum(first[0], second[0])) & (
        np.minimum(first[3], second[3]) > np.maximum(first[1], second[1])
    )
    which = np.flatnonzero(meet)
    ratio = intersection_over_union(*(box[:, which].T.astype(np.float64) for box in (first, second)))
    found[which] = is_above(ratio, bound)
    return found


def _limit(chosen: Array, owners: Array, limit: int, verdicts: Array, reason: str) -> Array:
    """The first `limit` of each pair's boxes, all where it is 0; the others get their verdict."""
    if not limit:
        return chosen
    beyond = ranks(owners[chosen]) >= limit
    verdicts[chosen[beyond]] = CODES[reason]
    return chosen[~beyond]


def ranks(owner: Array) -> Array:
    """The place of each row among those of its owner, from 0; the rows of an owner stand together."""
    if not len(owner):
        return np.zeros(0, dtype=np.int64)
    begins = np.concatenate(([True], owner[1:] != owner[:-1]))
    places = np.arange(len(owner))
    found: Array = places - places[begins][np.cumsum(begins) - 1]
    return found
