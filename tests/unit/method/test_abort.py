"""The laws of early abort: which pairs are given up by their preview, and that worker and store decide alike."""

import math

import pytest

from imgdiffd.job import ItemState
from imgdiffd.method.advance import Subject, advance
from imgdiffd.method.filters import finishes_anyway, judge_preview
from imgdiffd.method.messages import PREVIEW_COSINE, GenerateOutput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_sections import Abort
from imgdiffd.pipeline import Stage

DEFAULT = load_profile("default")
ON = Abort(mode="on", below=0.8, above=0.97)
CAPTIONS = [f"a cat on mat number {number}" for number in range(2000)]


def with_abort(abort: Abort, profile: Profile = DEFAULT) -> Profile:
    return profile.model_copy(update={"generate": profile.generate.model_copy(update={"abort": abort})})


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (0.7999, "preview_too_different"),
        (0.8, None),
        (0.97, None),
        (0.9701, "preview_too_similar"),
    ],
)
def test_a_preview_beyond_a_threshold_is_given_up(score: float, reason: str | None) -> None:
    verdict = judge_preview(score, ON, finishes=False)
    assert verdict.reason == reason
    assert reason is None or f"{score:.4f}" in verdict.detail


@pytest.mark.parametrize("score", [None, math.nan])
def test_a_pair_without_a_preview_is_never_given_up(score: float | None) -> None:
    assert judge_preview(score, ON, finishes=False).passed


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_only_mode_on_gives_pairs_up(mode: str) -> None:
    abort = Abort.model_validate({**ON.model_dump(), "mode": mode})
    assert judge_preview(0.1, abort, finishes=False).passed


@pytest.mark.parametrize("score", [-1.0, 1.0])
def test_a_side_without_a_threshold_gives_up_nothing(score: float) -> None:
    below, above = Abort(mode="on", below=0.5), Abort(mode="on", above=0.5)
    assert judge_preview(score, below, finishes=False).passed is (score > 0)
    assert judge_preview(score, above, finishes=False).passed is (score < 0)
    assert judge_preview(score, Abort(mode="on"), finishes=False).passed


def test_a_drawn_pair_is_finished_whatever_its_preview_says() -> None:
    assert judge_preview(0.1, ON, finishes=True).passed


def test_the_drawn_share_is_the_profiles_and_the_draw_repeats() -> None:
    drawn = [finishes_anyway(DEFAULT, caption, 1) for caption in CAPTIONS]
    assert drawn == [finishes_anyway(DEFAULT, caption, 1) for caption in CAPTIONS]
    assert 0.02 < sum(drawn) / len(drawn) < 0.04
    assert drawn != [finishes_anyway(DEFAULT, caption, 2) for caption in CAPTIONS]
    for share, expected in ((0.0, False), (1.0, True)):
        profile = with_abort(Abort(finished=share))
        assert {finishes_anyway(profile, caption, 1) for caption in CAPTIONS} == {expected}


def test_a_pair_given_up_ends_as_a_rejection_of_painting() -> None:
    caption = next(each for each in CAPTIONS if not finishes_anyway(DEFAULT, each, 1))
    subject = Subject(1, Stage.GENERATE, 1, caption)
    output = GenerateOutput(1, None, None, 1024, 1024, 7, {PREVIEW_COSINE: 0.5})
    step = advance(subject, output, with_abort(ON))
    assert (step.stage, step.state) == (Stage.GENERATE, ItemState.REJECTED)
    assert step.verdict.reason == "preview_too_different"


def test_a_pair_without_images_and_without_a_reason_is_not_kept() -> None:
    subject = Subject(1, Stage.GENERATE, 1, CAPTIONS[0])
    step = advance(subject, GenerateOutput(1, None, None, 1024, 1024, 7), DEFAULT)
    assert (step.state, step.verdict.reason) == (ItemState.REJECTED, "picture_missing")


def test_published_profiles_make_no_previews() -> None:
    modes = {name: load_profile(name).generate.abort.mode for name in ("default", "mini", "paper", "scripts")}
    assert modes == {"default": "shadow", "mini": "shadow", "paper": "off", "scripts": "off"}
    assert load_profile("data-juicer").generate.abort.mode == "off"


def test_thresholds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="every pair would be given up"):
        Abort(mode="on", below=0.9, above=0.8)
