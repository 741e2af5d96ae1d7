"""The laws of `imgdiffd.method.filters`: what passes every filter of the method, and why the rest does not."""

import math
from collections.abc import Mapping

import pytest

from imgdiffd.method.filters import (
    PASSED,
    Verdict,
    judge_area,
    judge_crops,
    judge_description,
    judge_difference,
    judge_matches,
    judge_nouns,
    judge_pair,
    judge_texts,
    left_image,
    summarise,
)
from imgdiffd.method.messages import Box, Description, Difference
from imgdiffd.method.profile import Profile, load_profile

DEFAULT = load_profile("default")
SCRIPTS = load_profile("scripts")
JUICER = load_profile("data-juicer")

NOUN1, NOUN2 = "blip_itc_cosine.noun1", "blip_itc_cosine.noun2"
MATCH1, MATCH2 = "blip_itc_cosine.description1", "blip_itc_cosine.description2"
IMAGE, TEXT = "clip_image_cosine", "clip_text_cosine"
SIZE = 100


def reason(verdict: Verdict) -> str | None:
    return verdict.reason


# The pair's filter


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
def test_missing_score_never_passes(scores: Mapping[str, float]) -> None:
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


def test_missing_match_of_one_side_never_passes() -> None:
    one_sided = Description(0, "a dog", "a cat", {TEXT: 0.5, MATCH1: 0.9})
    assert judge_description(one_sided, DEFAULT.describe) == Verdict("score_missing", MATCH2)


def test_difference_caption_needs_words() -> None:
    assert judge_difference(Difference(0, "A dog became a cat.")) == PASSED
    assert reason(judge_difference(Difference(0, " \n"))) == "difference_empty"


# The item's verdict


def test_item_passes_if_one_region_does() -> None:
    assert summarise([Verdict("description_mismatch"), PASSED]) == PASSED


def test_item_is_rejected_for_the_most_frequent_reason() -> None:
    verdicts = [Verdict("a"), Verdict("b"), Verdict("b")]
    assert summarise(verdicts) == Verdict("b", "a 1, b 2")
    assert summarise([]).reason == "no_region"


# Sides


def test_original_is_on_either_side_equally_often() -> None:
    """With the original always on the left, a model can learn "right = edited"."""
    lefts = [left_image(DEFAULT, f"caption {number}", 1, 0) for number in range(2000)]
    assert set(lefts) == {1, 2}
    assert 900 < lefts.count(1) < 1100


def test_side_is_drawn_for_each_region_and_stays_the_same() -> None:
    sides = [left_image(DEFAULT, "a dog", 1, index) for index in range(64)]
    assert set(sides) == {1, 2}
    assert sides == [left_image(DEFAULT, "a dog", 1, index) for index in range(64)]


def test_references_keep_the_original_on_the_left() -> None:
    assert {left_image(SCRIPTS, f"caption {number}", 1, 0) for number in range(50)} == {1}


def test_verdict_without_a_reason_has_passed() -> None:
    assert PASSED.passed
    assert not Verdict("x").passed
