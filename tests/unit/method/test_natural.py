"""The laws of the natural-image filter: only a clear yes passes."""

import math

import pytest

from imgdiffd.method.filters import judge_natural, says_yes
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Bound

NATURAL = load_profile("default").natural


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
    assert judge_natural(answer, {"yes_probability": 0.99}, NATURAL).reason == "answer_unclear"


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
    assert judge_natural("yes", {}, natural).reason == "score_missing"
    assert judge_natural("yes", {"yes_probability": math.nan}, natural).reason == "score_missing"
