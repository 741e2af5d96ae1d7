"""The laws of `imgdiffd.method.overlap`: of boxes that overlap, the most different is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.method.messages import Box
from imgdiffd.method.overlap import intersection_over_union, suppress_overlaps
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Bound

DEFAULT = load_profile("default")


def test_boxes_have_no_extra_pixel() -> None:
    box = np.array([0.0, 0, 10, 10])
    others = np.array([[5.0, 0, 15, 10], [10, 0, 20, 10], [0, 0, 10, 10], [3, 3, 3, 9]])
    assert intersection_over_union(box, others).tolist() == pytest.approx([1 / 3, 0, 1, 0])


def test_two_empty_boxes_do_not_overlap() -> None:
    empty = np.array([3.0, 3, 3, 3])
    assert intersection_over_union(empty, empty[None]).tolist() == [0.0]


def test_more_different_box_wins() -> None:
    boxes = [(0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)]
    assert suppress_overlaps(boxes, [0.8, 0.2, 0.5], DEFAULT.locate.overlap_iou) == [1, 2]


def test_overlap_at_the_bound_passes_only_where_it_is_strict() -> None:
    boxes = [(0, 0, 10, 10), (0, 0, 10, 5)]  # IoU 0.5
    assert suppress_overlaps(boxes, [0.1, 0.2], Bound(value=0.5)) == [0, 1]
    assert suppress_overlaps(boxes, [0.1, 0.2], Bound(value=0.5, closed=True)) == [0]


def test_of_equal_boxes_the_first_is_kept() -> None:
    assert suppress_overlaps([(0, 0, 9, 9)] * 3, [0.5] * 3, Bound(value=0.5)) == [0]


def test_without_boxes_none_is_kept() -> None:
    assert suppress_overlaps([], [], Bound(value=0.5)) == []


def _iou(one: Box, two: Box) -> float:
    width = max(0, min(one[2], two[2]) - max(one[0], two[0]))
    height = max(0, min(one[3], two[3]) - max(one[1], two[1]))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)) - width * height
    return width * height / area


BOXES = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(st.lists(st.tuples(BOXES, st.sampled_from([0.1, 0.2, 0.3, 0.4]))))
def test_every_dropped_box_overlaps_a_more_different_kept_one(found: list[tuple[Box, float]]) -> None:
    boxes, cosines = [box for box, _ in found], [cosine for _, cosine in found]
    kept = suppress_overlaps(boxes, cosines, Bound(value=0.5))
    assert [cosines[index] for index in kept] == sorted(cosines[index] for index in kept)
    for place, index in enumerate(kept):
        assert all(_iou(boxes[index], boxes[other]) <= 0.5 for other in kept[:place])
    for index in set(range(len(boxes))) - set(kept):
        assert any(_iou(boxes[index], boxes[k]) > 0.5 and (cosines[k], k) < (cosines[index], index) for k in kept)


def _naive(boxes: list[Box], cosines: list[float], bound: Bound) -> list[int]:
    """The double loop: box after box from the most different on, kept unless it overlaps with one that was."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda at: (cosines[at], at)):
        if not any(bound.above(_iou(boxes[index], boxes[other])) for other in kept):
            kept.append(index)
    return kept


@given(st.lists(st.tuples(BOXES, st.sampled_from([-0.1, 0.2, 0.3]))), st.sampled_from([0.0, 0.25, 0.5]), st.booleans())
def test_overlap_agrees_with_the_double_loop(found: list[tuple[Box, float]], value: float, closed: bool) -> None:
    boxes, cosines = [box for box, _ in found], [cosine for _, cosine in found]
    bound = Bound(value=value, closed=closed)
    assert suppress_overlaps(boxes, cosines, bound) == _naive(boxes, cosines, bound)


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_overlap_agrees_with_the_double_loop_and_keeps_ties(count: int) -> None:
    random = np.random.default_rng(count)
    corners, sides = random.integers(0, 400, (count, 2)), random.integers(1, 60, (count, 2))
    boxes = [(int(x), int(y), int(x + w), int(y + h)) for (x, y), (w, h) in zip(corners, sides, strict=True)]
    cosines = [float(each) / 10 for each in random.integers(0, 10, count)]  # about 200 boxes a tie
    kept = suppress_overlaps(boxes, cosines, DEFAULT.locate.overlap_iou)
    assert kept == _naive(boxes, cosines, DEFAULT.locate.overlap_iou)
    assert count < 2 or 0 < len(kept) < count
