"""All boxes at once get the verdicts that `method` gives them one by one."""

import math
from collections.abc import Sequence

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

# Few values, so that scores tie with one another and lie on the bounds.
values = st.sampled_from([-0.5, -0.0, 0.0, 0.2, 0.35, 0.4, 0.85, 0.9, 1.0, math.nan])
edges = st.integers(0, SIZE)
keys = st.sampled_from([CLIP_IMAGE_COSINE, *(noun_key(kind, side) for kind in KINDS for side in (1, 2))])
boxes = st.builds(
    Candidate,
    st.integers(1, 2),
    st.tuples(edges, edges, edges, edges),
    st.dictionaries(keys, values, max_size=5)
    | st.just({CLIP_IMAGE_COSINE: 0.2, **{noun_key(k, 1): 0.9 for k in KINDS}}),
)
bounds = st.builds(Bound, value=values.filter(math.isfinite), closed=st.booleans())
shares = st.sampled_from([0.0, 0.0025, 0.1, 0.25, 0.5, 1.0])
limits = st.sampled_from([0, 1, 2, 5])


@st.composite
def locates(draw: st.DrawFn) -> Locate:
    """The section of a built-in profile with other thresholds and rules."""
    given = {
        "min_area": shares,
        "max_area": shares,
        "crop_cosine_below": bounds,
        "noun_kind": st.sampled_from(KINDS),
        "noun_above": bounds,
        "noun_rule": st.sampled_from(["any", "both"]),
        "overlap_iou": bounds,
        "regions": limits,
        "area_test": st.sampled_from(["first", "last"]),
        "overlap_keeps": st.sampled_from(["most_different", "first_found"]),
        "overlap_limit": limits,
    }
    base = PROFILES[draw(st.sampled_from(BUILT_IN))].locate
    return base.model_copy(update={key: draw(chosen) for key, chosen in given.items() if draw(st.booleans())})


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


@given(st.lists(st.lists(boxes, max_size=9), max_size=5), locates())
def test_boxes_get_the_verdicts_of_choose_regions(pairs: list[list[Candidate]], locate: Locate) -> None:
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
