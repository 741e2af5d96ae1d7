"""All boxes at once get the verdicts that `method` gives them one by one."""

import math
from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.choosing.boxes import BOX_REASONS, choose_boxes, ranks
from imgdiffd.choosing.columns import Columns
from imgdiffd.choosing.gathering import gather
from imgdiffd.job import ItemState
from imgdiffd.method.filters import choose_regions
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, Candidate, noun_key
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_files import BUILT_IN
from imgdiffd.method.profile_sections import Bound, Locate
from imgdiffd.pipeline import Stage
from imgdiffd.store import ItemMark, ScoredItem

SIZE = 40
PROFILES = {name: load_profile(name) for name in BUILT_IN}
KINDS = ("blip_itc_cosine", "blip_itm_probability")
KEYS = (CLIP_IMAGE_COSINE, *(noun_key(kind, side) for kind in KINDS for side in (1, 2)))

# Few values, so that scores tie with one another and lie on the bounds.
VALUES = (-0.5, -0.0, 0.0, 0.2, 0.35, 0.4, 0.6, 0.85, 0.9, 1.0)


def drawn_box(draw: Random) -> Candidate:
    """Mostly one of a few places, so that boxes overlap, with scores that mostly are there."""
    x, y = draw.choice((0, 3, 20)), draw.choice((0, 4, 18))
    box = (x, y, x + draw.choice((15, 18, 20, 0, -4)), y + draw.choice((14, 18, 20)))
    scores = {key: draw.choice(VALUES) for key in KEYS if draw.random() < 0.95}
    if draw.random() < 0.05:
        scores[CLIP_IMAGE_COSINE] = math.nan
    return Candidate(draw.randint(1, 2), box, scores)


def drawn_locate(draw: Random) -> Locate:
    """The section of a built-in profile with other thresholds and rules."""
    bounds = (Bound(value=draw.choice(VALUES), closed=draw.random() < 0.5) for _ in range(3))
    drawn = {
        "min_area": draw.choice((0.0, 0.0025, 0.12)),
        "max_area": draw.choice((0.1, 0.2, 1.0)),
        **dict(zip(("crop_cosine_below", "noun_above", "overlap_iou"), bounds, strict=True)),
        "noun_kind": draw.choice(KINDS),
        "noun_rule": draw.choice(("any", "both")),
        "regions": draw.choice((0, 1, 2, 5)),
        "area_test": draw.choice(("first", "last")),
        "overlap_keeps": draw.choice(("most_different", "first_found")),
        "overlap_limit": draw.choice((0, 1, 2, 5)),
    }
    base = PROFILES[draw.choice(BUILT_IN)].locate
    return base.model_copy(update={key: value for key, value in drawn.items() if draw.random() < 0.5})


def columns_of(pairs: Sequence[Sequence[Candidate]]) -> Columns:
    """The columns of pairs with these boxes."""
    numbers = range(1, len(pairs) + 1)
    marks = [ItemMark(n, 1, 1, bytes(16), Stage.LOCATE, ItemState.READY, 1, "", 0.0, 0.0) for n in numbers]
    found = [tuple((each.image, each.box, each.scores, "", "") for each in pair) for pair in pairs]
    scored = [
        ScoredItem(n, "", (), SIZE, SIZE, True, {}, "", (True, True), boxes, ())
        for n, boxes in zip(numbers, found, strict=True)
    ]
    return gather(marks, scored, {1: PROFILES["default"]})


@given(st.integers(0, 2**64))
def test_boxes_get_the_verdicts_of_choose_regions(seed: int) -> None:
    draw = Random(seed)
    pairs = [[drawn_box(draw) for _ in range(draw.randint(0, 12))] for _ in range(20)]
    locate = drawn_locate(draw)
    columns = columns_of(pairs)
    choice = choose_boxes(columns, locate)
    starts, owners = columns.starts("boxes"), columns.box_owners[choice.chosen]
    assert (ranks(owners) < (locate.regions or math.inf)).all()
    for row, pair in enumerate(pairs):
        wanted = choose_regions(pair, locate, SIZE, SIZE)
        found = choice.verdicts[starts[row] : starts[row + 1]]
        assert [BOX_REASONS[code] for code in found] == [verdict.reason or "" for verdict in wanted.verdicts]
        chosen = choice.chosen[owners == row] - starts[row]
        assert chosen.tolist() == [region.candidate for region in wanted.regions]
