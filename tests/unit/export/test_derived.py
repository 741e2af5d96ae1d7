"""Kinds that are made from stored rows: what they ask, what they answer, and what never becomes one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from imgdiffd.export import release
from imgdiffd.export.derived import BoxStyle
from imgdiffd.export.sample import Choice, Sample, samples
from imgdiffd.method.agreement import agrees
from imgdiffd.method.identity import sample_key
from imgdiffd.method.profile import load_profile
from imgdiffd.method.removal import Side
from imgdiffd.store import RejectedRow
from tests.fakes.made_samples import SAMPLE, MadeSamples, removal_row

PROFILE = load_profile("default")
ALIKE = {
    "clip_image_cosine": 0.82,
    "clip_text_cosine": 1.0,
    "blip_itc_cosine.description1": 0.5,
    "blip_itc_cosine.description2": 0.5,
}


def rejected(
    text1: str = "A red cone.",
    text2: str = "the red cone",
    left: int = 1,
    scores: Mapping[str, float] = MappingProxyType({}),
) -> RejectedRow:
    row = replace(SAMPLE, text1=text1, text2=text2, left=left, difference="", left_image="", right_image="", key="")
    return RejectedRow(replace(row, scores={**ALIKE, **scores}), "descriptions_too_similar", PROFILE)


def made(tmp_path: Path, kind: str, *rows: RejectedRow) -> list[Sample]:
    source = MadeSamples(tmp_path, [])
    source.rejected = list(rows)
    source.removals = [removal_row("left"), removal_row("right", index=1)]
    return list(samples(source, Choice(kinds=(kind,))))


@pytest.mark.parametrize(("number", "holder", "letter"), [(0, "left", "B"), (1, "right", "A")])
def test_addition_asks_which_side_lacks_the_object(tmp_path: Path, number: int, holder: Side, letter: str) -> None:
    addition, removal = (made(tmp_path / kind, kind)[number] for kind in ("addition", "removal"))
    assert addition.original == holder
    assert addition.answer == letter != removal.answer
    assert 'To which image would the object related to "a grey cat" have to be added' in addition.question
    assert addition.question.endswith("Answer with the option's letter from the given choices directly.")
    assert (addition.left, addition.right, addition.box) == (removal.left, removal.right, removal.box)
    assert len(addition.key) == 32
    assert addition.key != removal.key


def test_other_kinds_are_made_only_where_they_are_asked_for(tmp_path: Path) -> None:
    source = MadeSamples(tmp_path, [1])
    source.rejected, source.removals = [rejected()], [removal_row()]
    assert {each.kind for each in samples(source, Choice())} == {"replacement", "removal"}


def test_no_difference_says_so_and_what_both_show(tmp_path: Path) -> None:
    (sample,) = made(tmp_path, "no_difference", rejected(left=2))
    assert sample.question == release.QUESTION
    assert sample.answer == ("There is no difference between the two areas. Both can be described as: the red cone.")
    assert (sample.left, sample.right) == (SAMPLE.image2, SAMPLE.image1)
    assert sample.box_style == BoxStyle(PROFILE.render, PROFILE.contrast.bar_px)
    assert sample.key == sample_key(PROFILE, SAMPLE.caption1, "no_difference", SAMPLE.region)
    assert sample.reason == ""


@pytest.mark.parametrize(
    ("text1", "text2", "scores", "agreed"),
    [
        ("a red cone", "A red cone.", {}, True),
        ("the red cone in a box", "a red cone in the box", {}, True),
        ("a red cone", "a blue cone", {}, False),
        ("a red cone", "a red cone on a table", {}, False),
        (".", "", {}, False),
        ("the", "a", {}, False),
        ("a red cone", "a red cone", {"clip_image_cosine": 0.8}, True),
        ("a red cone", "a red cone", {"clip_image_cosine": 0.79}, False),
        ("a red cone", "a red cone", {"clip_image_cosine": float("nan")}, False),
        ("a red cone", "a red cone", {"blip_itc_cosine.description2": 0.39}, False),
        ("a red cone", "a red cone", {"blip_itc_cosine.description1": float("nan")}, False),
    ],
)
def test_only_what_is_certainly_alike_agrees(
    tmp_path: Path, text1: str, text2: str, scores: dict[str, float], agreed: bool
) -> None:
    row = rejected(text1, text2, scores=scores)
    assert agrees(text1, text2, row.sample.scores, PROFILE) is agreed
    assert len(made(tmp_path, "no_difference", row)) == agreed


def test_a_score_that_was_never_measured_agrees_with_nothing() -> None:
    for lacking in ALIKE.keys() - {"clip_text_cosine"}:
        assert not agrees("a cone", "a cone", {name: ALIKE[name] for name in ALIKE.keys() - {lacking}}, PROFILE)


def test_a_hard_negative_carries_its_reason_and_what_would_have_been_said(tmp_path: Path) -> None:
    told = rejected("A red cone.", "a blue cone", left=2)
    told = replace(told, reason="description_mismatch")
    said = replace(told, sample=replace(told.sample, region=1, difference="One is red."))
    first, second = made(tmp_path, "hard_negative", told, said)
    assert first.answer == "The left image shows: a blue cone. The right image shows: A red cone."
    assert second.answer == "One is red."
    assert {first.reason, second.reason} == {"description_mismatch"}
    assert first.key != second.key
    assert first.kind == "hard_negative"
