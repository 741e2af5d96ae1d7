"""The laws of `imgdiffd.method.filters`: what passes every filter of the method, and why the rest does not."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.method.filters import (
    PASSED,
    Verdict,
    choose_regions,
    intersection_over_union,
    judge_area,
    judge_crops,
    judge_description,
    judge_difference,
    judge_matches,
    judge_natural,
    judge_nouns,
    judge_pair,
    judge_texts,
    left_image,
    says_yes,
    summarise,
    suppress_overlaps,
)
from imgdiffd.method.messages import Box, Candidate, Description, Difference
from imgdiffd.method.profile import Bound, Profile, load_profile

DEFAULT = load_profile("default")
SCRIPTS = load_profile("scripts")
JUICER = load_profile("data-juicer")

NOUN1, NOUN2 = "blip_itc_cosine.noun1", "blip_itc_cosine.noun2"
MATCH1, MATCH2 = "blip_itc_cosine.description1", "blip_itc_cosine.description2"
IMAGE, TEXT = "clip_image_cosine", "clip_text_cosine"
GOOD = {IMAGE: 0.5, NOUN1: 0.4, NOUN2: 0.1}
SIZE = 100


def reason(verdict: Verdict) -> str | None:
    return verdict.reason


# The pair's gate


@pytest.mark.parametrize(
    ("profile", "score", "expected"),
    [
        (DEFAULT, 0.9, "pair_too_different"),
        (DEFAULT, 0.9001, None),
        (DEFAULT, 0.9799, None),
        (DEFAULT, 0.98, "pair_too_similar"),
        (SCRIPTS, 0.9004, "pair_too_different"),  # 0.900 once rounded
        (SCRIPTS, 0.9006, None),
        (SCRIPTS, 0.9796, "pair_too_similar"),
        (JUICER, 0.9, None),
        (JUICER, 0.99, None),
        (JUICER, 0.9901, "pair_too_similar"),
        (JUICER, 0.8999, "pair_too_different"),
    ],
)
def test_pair_passes_between_its_bounds(profile: Profile, score: float, expected: str | None) -> None:
    assert reason(judge_pair({IMAGE: score}, profile.pair)) == expected


@pytest.mark.parametrize("scores", [{}, {IMAGE: math.nan}, {"clip_text_cosine": 0.95}])
def test_missing_score_is_never_keep(scores: Mapping[str, float]) -> None:
    """Data-Juicer counts a missing score as "keep"."""
    for profile in (DEFAULT, SCRIPTS, JUICER):
        assert reason(judge_pair(scores, profile.pair)) == "score_missing"
        assert reason(judge_crops(scores, profile.locate)) == "score_missing"
        assert reason(judge_nouns(scores, profile.locate)) == "score_missing"
        assert reason(judge_matches(scores, profile.describe)) == "score_missing"
    assert reason(judge_texts({}, DEFAULT.describe)) == "score_missing"
    assert reason(judge_texts({TEXT: math.nan}, DEFAULT.describe)) == "score_missing"


def test_score_of_another_kind_does_not_stand_in() -> None:
    itm = {"blip_itm_probability.noun1": 0.99, "blip_itm_probability.noun2": 0.99}
    assert reason(judge_nouns(itm, DEFAULT.locate)) == "score_missing"
    assert judge_nouns(itm, JUICER.locate) == PASSED


# Boxes alone


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 5, 5), None),  # 1/400 exactly: closed
        ((0, 0, 4, 6), "box_too_small"),
        ((0, 0, SIZE, SIZE), None),
        ((7, 7, 7, 20), "box_degenerate"),
        ((7, 7, 20, 7), "box_degenerate"),
        ((20, 20, 10, 30), "box_degenerate"),
    ],
)
def test_box_needs_a_four_hundredth_of_the_image(box: Box, expected: str | None) -> None:
    assert reason(judge_area(box, SIZE, SIZE, DEFAULT.locate)) == expected


@pytest.mark.parametrize(("box", "expected"), [((0, 0, 10, 100), None), ((0, 0, 11, 100), "box_too_large")])
def test_data_juicer_refuses_more_than_a_tenth_of_the_image(box: Box, expected: str | None) -> None:
    assert reason(judge_area(box, SIZE, SIZE, JUICER.locate)) == expected


@pytest.mark.parametrize(
    ("profile", "score", "expected"),
    [
        (DEFAULT, 0.8499, None),
        (DEFAULT, 0.85, "crops_too_similar"),
        (JUICER, 0.85, None),
        (JUICER, 0.8501, "crops_too_similar"),
    ],
)
def test_crops_must_differ(profile: Profile, score: float, expected: str | None) -> None:
    assert reason(judge_crops({IMAGE: score}, profile.locate)) == expected


@pytest.mark.parametrize(
    ("side1", "side2", "expected"),
    [
        (0.36, 0.1, None),
        (0.1, 0.36, None),
        (0.35, 0.35, "no_object_in_box"),
        (0.36, None, None),
        (None, 0.36, None),
        (None, 0.2, "no_object_in_box"),
        (None, None, "score_missing"),
    ],
)
def test_one_side_with_its_noun_is_enough(side1: float | None, side2: float | None, expected: str | None) -> None:
    scores = {key: score for key, score in ((NOUN1, side1), (NOUN2, side2)) if score is not None}
    assert reason(judge_nouns(scores, DEFAULT.locate)) == expected


@pytest.mark.parametrize(
    ("side1", "side2", "expected"),
    [
        (0.4, 0.4, None),
        (0.9, 0.39, "no_object_in_box"),
        (0.39, 0.9, "no_object_in_box"),
        (0.9, None, "score_missing"),
        (None, 0.9, "score_missing"),
    ],
)
def test_data_juicer_wants_both_sides(side1: float | None, side2: float | None, expected: str | None) -> None:
    keys = ("blip_itm_probability.noun1", "blip_itm_probability.noun2")
    scores = {key: score for key, score in zip(keys, (side1, side2), strict=True) if score is not None}
    assert reason(judge_nouns(scores, JUICER.locate)) == expected


# Boxes against one another


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


def test_overlap_of_just_the_bound_is_allowed_only_where_it_is_strict() -> None:
    boxes = [(0, 0, 10, 10), (0, 0, 10, 5)]  # IoU 0.5
    assert suppress_overlaps(boxes, [0.1, 0.2], Bound(value=0.5)) == [0, 1]
    assert suppress_overlaps(boxes, [0.1, 0.2], Bound(value=0.5, closed=True)) == [0]


def test_equal_boxes_keep_the_first() -> None:
    assert suppress_overlaps([(0, 0, 9, 9)] * 3, [0.5] * 3, Bound(value=0.5)) == [0]


def test_nothing_gives_nothing() -> None:
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
def test_kept_boxes_are_apart_and_every_other_gave_way_to_a_more_different_one(found: list[tuple[Box, float]]) -> None:
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
def test_overlap_agrees_with_the_double_loop_for_any_number_of_boxes_with_ties_in_order(count: int) -> None:
    random = np.random.default_rng(count)
    corners, sides = random.integers(0, 400, (count, 2)), random.integers(1, 60, (count, 2))
    boxes = [(int(x), int(y), int(x + w), int(y + h)) for (x, y), (w, h) in zip(corners, sides, strict=True)]
    cosines = [float(each) / 10 for each in random.integers(0, 10, count)]  # about 200 boxes a tie
    kept = suppress_overlaps(boxes, cosines, DEFAULT.locate.overlap_iou)
    assert kept == _naive(boxes, cosines, DEFAULT.locate.overlap_iou)
    assert count < 2 or 0 < len(kept) < count


# All of a pair's boxes


def spaced(count: int, **over: float) -> list[Candidate]:
    return [
        Candidate(1 + n % 2, (n * 10, 0, n * 10 + 8, 8), GOOD | {IMAGE: 0.8 - n / 100} | over) for n in range(count)
    ]


def test_every_candidate_has_its_verdict_in_order() -> None:
    candidates = [
        Candidate(1, (0, 0, 2, 2), GOOD),
        Candidate(1, (10, 10, 30, 30), GOOD | {IMAGE: 0.9}),
        Candidate(2, (10, 10, 30, 30), {IMAGE: 0.5, NOUN1: 0.1, NOUN2: 0.2}),
        Candidate(2, (10, 10, 30, 30), {IMAGE: 0.5}),
        Candidate(2, (40, 40, 60, 60), GOOD),
        Candidate(1, (40, 40, 60, 61), GOOD | {IMAGE: 0.4}),
        Candidate(1, (5, 5, 5, 9), GOOD),
    ]
    choice = choose_regions(candidates, DEFAULT.locate, SIZE, SIZE)
    assert [verdict.reason for verdict in choice.verdicts] == [
        "box_too_small",
        "crops_too_similar",
        "no_object_in_box",
        "score_missing",
        "overlaps_more_different_box",
        None,
        "box_degenerate",
    ]
    assert [(region.index, region.candidate, region.image, region.box) for region in choice.regions] == [
        (0, 5, 1, (40, 40, 60, 61))
    ]
    assert choice.verdict == PASSED


def test_one_degenerate_box_does_not_cost_the_pair() -> None:
    """The authors' scripts drop the whole pair."""
    choice = choose_regions([Candidate(1, (5, 5, 5, 9), {}), *spaced(1)], DEFAULT.locate, SIZE, SIZE)
    assert len(choice.regions) == 1


def test_pair_without_boxes_is_rejected_with_its_reason() -> None:
    choice = choose_regions([], DEFAULT.locate, SIZE, SIZE)
    assert choice.verdict.reason == "no_boxes"


def test_pair_without_a_region_says_what_became_of_its_boxes() -> None:
    choice = choose_regions(
        [*spaced(2, clip_image_cosine=0.9), Candidate(1, (0, 0, 1, 1), {})], DEFAULT.locate, SIZE, SIZE
    )
    assert choice.verdict == Verdict("no_region", "crops_too_similar 2, box_too_small 1")
    assert choice.regions == ()


def test_at_most_five_regions_the_most_different_first() -> None:
    choice = choose_regions(spaced(8), DEFAULT.locate, SIZE, SIZE)
    assert [region.candidate for region in choice.regions] == [7, 6, 5, 4, 3]
    assert [region.index for region in choice.regions] == [0, 1, 2, 3, 4]
    assert [verdict.reason for verdict in choice.verdicts] == ["beyond_region_limit"] * 3 + [None] * 5


def test_weak_box_cannot_push_out_a_good_one() -> None:
    """Overlap compares boxes that passed: a more different one without an object is no rival."""
    weak = Candidate(1, (0, 0, 20, 20), {IMAGE: 0.1, NOUN1: 0.0, NOUN2: 0.0})
    good = Candidate(2, (0, 0, 20, 20), GOOD)
    choice = choose_regions([weak, good], DEFAULT.locate, SIZE, SIZE)
    assert [region.candidate for region in choice.regions] == [1]


@given(st.permutations(range(6)))
def test_choice_does_not_depend_on_the_order_of_the_boxes(order: list[int]) -> None:
    candidates = spaced(6)
    choice = choose_regions([candidates[index] for index in order], DEFAULT.locate, SIZE, SIZE)
    assert [region.box for region in choice.regions] == [candidates[index].box for index in (5, 4, 3, 2, 1)]


# Region captions


def description(text1: str = "a dog", text2: str = "a cat", over: Mapping[str, float] | None = None) -> Description:
    return Description(0, text1, text2, {TEXT: 0.5, MATCH1: 0.5, MATCH2: 0.5} | dict(over or {}))


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({}, None),
        ({TEXT: 0.85}, "descriptions_too_similar"),
        ({TEXT: 0.8499}, None),
        ({MATCH1: 0.4}, "description_mismatch"),
        ({MATCH2: 0.4}, "description_mismatch"),
        ({MATCH1: 0.4001, MATCH2: 0.4001}, None),
        ({TEXT: 0.9, MATCH1: 0.1}, "descriptions_too_similar"),
    ],
)
def test_region_caption_must_differ_and_match_its_own_side(over: dict[str, float], expected: str | None) -> None:
    assert reason(judge_description(description(over=over), DEFAULT.describe)) == expected


def test_region_without_a_caption_is_refused() -> None:
    assert reason(judge_description(description(text1=" \n"), DEFAULT.describe)) == "description_empty"
    assert reason(judge_description(description(text2=""), DEFAULT.describe)) == "description_empty"


def test_missing_match_of_one_side_is_never_keep() -> None:
    one_sided = Description(0, "a dog", "a cat", {TEXT: 0.5, MATCH1: 0.9})
    assert judge_description(one_sided, DEFAULT.describe) == Verdict("score_missing", MATCH2)


def test_difference_caption_needs_words() -> None:
    assert judge_difference(Difference(0, "A dog became a cat.")) == PASSED
    assert reason(judge_difference(Difference(0, " \n"))) == "difference_empty"


# The natural-image filter

NATURAL = DEFAULT.natural


@pytest.mark.parametrize("answer", ["yes", "Yes", " YES.\n", '"yes"', "**Yes**", "'Yes'."])
def test_a_bare_yes_is_a_yes(answer: str) -> None:
    assert says_yes(answer) is True


@pytest.mark.parametrize("answer", ["no", "No.", '"NO"'])
def test_a_bare_no_is_a_no(answer: str) -> None:
    assert says_yes(answer) is False


@pytest.mark.parametrize(
    "answer",
    ["", " ", ".", "nothing odd", "not", "I know", "yesterday", "yes and no", "no, yes", "Yes, the pair is", "ja"],
)
def test_anything_else_is_neither(answer: str) -> None:
    """The scripts take any answer with the letters "no" in it, "know" too, for a no, and every other for a yes."""
    assert says_yes(answer) is None
    assert reason(judge_natural(answer, {"yes_probability": 0.99}, NATURAL)) == "answer_unclear"


def test_the_answer_decides_unless_the_probability_is_to() -> None:
    by_score = NATURAL.model_copy(update={"rule": "probability", "yes_above": Bound(value=0.3)})
    for answer, score, passes, passes_by_score in (
        ("yes", 0.9, True, True),
        ("yes", 0.2, True, False),
        ("no", 0.4, False, True),
        ("no", 0.3, False, False),
    ):
        verdicts = [judge_natural(answer, {"yes_probability": score}, natural) for natural in (NATURAL, by_score)]
        assert [verdict.passed for verdict in verdicts] == [passes, passes_by_score]
        assert {verdict.reason for verdict in verdicts} <= {None, "unnatural"}


@pytest.mark.parametrize("rule", ["answer", "probability"])
def test_a_judgement_without_its_score_is_not_kept(rule: str) -> None:
    natural = NATURAL.model_copy(update={"rule": rule})
    assert reason(judge_natural("yes", {}, natural)) == "score_missing"
    assert reason(judge_natural("yes", {"yes_probability": math.nan}, natural)) == "score_missing"


# The item's verdict


def test_item_passes_if_one_region_does() -> None:
    assert summarise([Verdict("description_mismatch"), PASSED]) == PASSED


def test_item_is_rejected_for_the_most_frequent_reason() -> None:
    verdicts = [Verdict("a"), Verdict("b"), Verdict("b")]
    assert summarise(verdicts) == Verdict("b", "a 1, b 2")
    assert summarise([]).reason == "no_region"


# Sides


def test_original_is_on_either_side_equally_often_so_that_no_side_gives_the_edit_away() -> None:
    """With the original always on the left, a model can learn "right = edited"."""
    lefts = [left_image(DEFAULT, f"caption {number}", 1, 0) for number in range(2000)]
    assert set(lefts) == {1, 2}
    assert 900 < lefts.count(1) < 1100


def test_side_is_drawn_for_each_region_and_is_the_same_each_time() -> None:
    sides = [left_image(DEFAULT, "a dog", 1, index) for index in range(64)]
    assert set(sides) == {1, 2}
    assert sides == [left_image(DEFAULT, "a dog", 1, index) for index in range(64)]


def test_references_keep_the_original_on_the_left() -> None:
    assert {left_image(SCRIPTS, f"caption {number}", 1, 0) for number in range(50)} == {1}


def test_verdict_without_a_reason_has_passed() -> None:
    assert PASSED.passed
    assert not Verdict("x").passed
