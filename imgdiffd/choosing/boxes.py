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
    owners = columns.owners("boxes")
    verdicts = _judge_alone(columns, owners, locate)
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
        verdicts[chosen] = _judge_areas(columns, owners, chosen, locate)
        chosen = chosen[verdicts[chosen] == 0]
    chosen = _limit(chosen, owners, locate.regions, verdicts, "beyond_region_limit")
    return BoxChoice(verdicts, chosen)


def _judge_alone(columns: Columns, owners: Array, locate: Locate) -> Array:
    """What `filters.judge_box` says of every box."""
    box = columns.boxes["box"]
    if locate.area_test == "first":
        verdicts = _judge_areas(columns, owners, np.arange(len(box)), locate)
    else:
        verdicts = np.where(_is_degenerate(box), np.int8(CODES["box_degenerate"]), np.int8(0))
    cosines = scores(columns.boxes, CLIP_IMAGE_COSINE)
    open_ = np.flatnonzero(verdicts == 0)
    found = cosines[open_]
    verdicts[open_[~is_below(found, locate.crop_cosine_below)]] = CODES["crops_too_similar"]
    verdicts[open_[np.isnan(found)]] = CODES["score_missing"]
    open_ = np.flatnonzero(verdicts == 0)
    verdicts[open_] = _judge_nouns(columns, open_, locate)
    return verdicts


def _judge_areas(columns: Columns, owners: Array, rows: Array, locate: Locate) -> Array:
    """What `filters.judge_area` says of the boxes at `rows`."""
    box = columns.boxes["box"][rows].astype(np.int64)
    whole = (columns.items["width"] * columns.items["height"])[owners[rows]]
    degenerate = _is_degenerate(box)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    share = np.divide(area, whole, out=np.zeros(len(rows)), where=whole > 0)
    verdicts = np.zeros(len(rows), dtype=np.int8)
    verdicts[share > locate.max_area] = CODES["box_too_large"]
    verdicts[share < locate.min_area] = CODES["box_too_small"]
    verdicts[degenerate] = CODES["box_degenerate"]
    return verdicts


def _is_degenerate(box: Array) -> Array:
    degenerate: Array = (box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1])
    return degenerate


def noun_scores(columns: Columns, rows: Array, locate: Locate) -> Array:
    """The score of each box at `rows` that `filters.judge_nouns` decides by; NaN where that is missing."""
    first, second = (scores(columns.boxes, noun_key(locate.noun_kind, side))[rows] for side in (1, 2))
    return np.fmax(first, second) if locate.noun_rule == "any" else np.minimum(first, second)


def _judge_nouns(columns: Columns, rows: Array, locate: Locate) -> Array:
    deciding = noun_scores(columns, rows, locate)
    verdicts = np.where(is_above(deciding, locate.noun_above), np.int8(0), np.int8(CODES["no_object_in_box"]))
    verdicts[np.isnan(deciding)] = CODES["score_missing"]
    return verdicts


def lacking_scores(columns: Columns, choice: BoxChoice, locate: Locate) -> Array:
    """The rows of boxes about which a score would have to decide that was never made, or was not finite."""
    degenerate, small, large = (CODES[reason] for reason in BOX_REASONS[1:4])
    verdicts = choice.verdicts
    asked = verdicts != degenerate
    if locate.area_test == "first":
        asked &= (verdicts != small) & (verdicts != large)
    rows = np.flatnonzero(asked)
    cosines = scores(columns.boxes, CLIP_IMAGE_COSINE)[rows]
    lacking = np.isnan(cosines)
    differs = is_below(cosines, locate.crop_cosine_below)
    owners = columns.owners("boxes")[rows[differs]]
    for side in (1, 2):
        missing = np.isnan(scores(columns.boxes, noun_key(locate.noun_kind, side))[rows[differs]])
        lacking[differs] |= missing & columns.items[f"nouns{side}"][owners]
    return rows[lacking]


def suppress(boxes: Array, owners: Array, rows: Array, bound: Bound) -> Array:
    """Those of the boxes at `rows` that `overlap.suppress_overlaps` keeps, each owner's in the order given.

    The rows of an owner stand together. In each round the first box left of every owner is kept, and what overlaps it
    falls: exactly the greedy rule, for all owners at once.
    """
    corners = boxes[rows].astype(np.float64)
    owner = owners[rows]
    kept = np.zeros(len(rows), dtype=bool)
    left = np.arange(len(rows))
    while len(left):
        begins = np.concatenate(([True], owner[left[1:]] != owner[left[:-1]]))
        heads = left[begins]
        kept[heads] = True
        others = left[~begins]
        ratio = intersection_over_union(corners[heads[np.cumsum(begins) - 1][~begins]], corners[others])
        left = others[~is_above(ratio, bound)]
    return rows[kept]


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
