"""Where an item goes after each stage."""

import dataclasses

import pytest

from imgdiffd.job import ItemState
from imgdiffd.method.advance import Subject, advance
from imgdiffd.method.filters import left_image
from imgdiffd.method.messages import (
    CompareInput,
    CompareOutput,
    ContrastInput,
    ContrastOutput,
    DescribeInput,
    DescribeOutput,
    Description,
    Difference,
    GenerateInput,
    LocateInput,
    RegionInput,
    RenderInput,
    RenderOutput,
    RenderRegion,
    RewriteInput,
    RewriteOutput,
    Screened,
    ScreenInput,
    ScreenOutput,
    StageInput,
    StageOutput,
    VetInput,
    VetOutput,
)
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import CAPTION_STAGES, Stage, stage_after
from tests.fakes.answers import BOXES, PROFILE, SCREENED, VETTED, answer

CAPTION = "a cat on a mat"
INPUTS: dict[Stage, StageInput] = {
    Stage.REWRITE: RewriteInput(1, CAPTION, 1),
    Stage.GENERATE: GenerateInput(1, CAPTION, "a dog on a mat", 1),
    Stage.COMPARE: CompareInput(1, "a.png", "b.png"),
    Stage.VET: VetInput(1, "a.png", "b.png"),
    Stage.LOCATE: LocateInput(1, "a.png", "b.png", ("cat",), ("dog",)),
    Stage.DESCRIBE: DescribeInput(1, "a.png", "b.png", (RegionInput(0, BOXES[0]), RegionInput(1, BOXES[1]))),
    Stage.CONTRAST: ContrastInput(1, "a.png", "b.png", ()),
    Stage.SCREEN: ScreenInput(1, "a.png", "b.png", (RenderRegion(0, BOXES[0], 1), RenderRegion(1, BOXES[1], 2))),
    Stage.RENDER: RenderInput(1, "a.png", "b.png", (RenderRegion(0, BOXES[0], 1), RenderRegion(1, BOXES[1], 2))),
}
SCORED = {"clip_text_cosine": 0.3, "blip_itc_cosine.description1": 0.9, "blip_itc_cosine.description2": 0.9}


def subject(stage: Stage, attempt: int = 1) -> Subject:
    return Subject(1, stage, attempt, CAPTION, 100, 100, (0, 1) if stage in INPUTS_WITH_REGIONS else ())


INPUTS_WITH_REGIONS = {Stage.DESCRIBE, Stage.CONTRAST, Stage.SCREEN, Stage.RENDER}


def passing(stage: Stage) -> StageOutput:
    if stage is Stage.CONTRAST:
        return ContrastOutput(1, (Difference(0, "It changed."), Difference(1, "It changed.")))
    return answer(INPUTS[stage])


@pytest.mark.parametrize("profile", [PROFILE, VETTED, SCREENED], ids=["neither", "vetted", "screened"])
@pytest.mark.parametrize("stage", CAPTION_STAGES)
def test_what_passes_a_stage_waits_in_the_next(stage: Stage, profile: Profile) -> None:
    step = advance(subject(stage), passing(stage), profile)
    following = stage_after(stage, profile.skipped_stages)
    assert step.verdict.passed
    if following is None:
        assert (step.stage, step.state) == (stage, ItemState.SAMPLED)
    else:
        assert (step.stage, step.state) == (following, ItemState.READY)


@pytest.mark.parametrize("stage", [Stage.COMPARE, Stage.VET, Stage.LOCATE, Stage.DESCRIBE, Stage.SCREEN])
def test_what_a_filter_rejects_ends_in_its_stage_with_a_reason(stage: Stage) -> None:
    step = advance(subject(stage), answer(INPUTS[stage], passes=False), PROFILE)
    assert (step.stage, step.state) == (stage, ItemState.REJECTED)
    assert step.verdict.reason


def test_without_the_filter_a_pair_goes_from_compare_to_locate() -> None:
    step = advance(subject(Stage.COMPARE), passing(Stage.COMPARE), PROFILE)
    assert (step.stage, step.state) == (Stage.LOCATE, ItemState.READY)


@pytest.mark.parametrize("scores", [{}, {"yes_probability": float("nan")}])
def test_a_yes_without_its_probability_is_not_kept(scores: dict[str, float]) -> None:
    step = advance(subject(Stage.VET), VetOutput(1, "yes", scores), VETTED)
    assert (step.state, step.verdict.reason) == (ItemState.REJECTED, "score_missing")


def test_only_samples_that_look_natural_are_drawn() -> None:
    said = (Screened(0, "no", {"yes_probability": 0.3}), Screened(1, "Yes.", {"yes_probability": 0.8}))
    step = advance(subject(Stage.SCREEN), ScreenOutput(1, said), SCREENED)
    assert (step.stage, step.state) == (Stage.RENDER, ItemState.READY)
    assert [verdict.reason for verdict in step.parts] == ["unnatural", None]
    step = advance(subject(Stage.SCREEN), ScreenOutput(1, said[:1]), SCREENED)
    assert (step.stage, step.state) == (Stage.SCREEN, ItemState.REJECTED)
    assert [verdict.reason for verdict in step.parts] == ["unnatural", "answer_missing"]


def test_a_rejected_rewrite_is_retried_while_attempts_remain() -> None:
    attempts = PROFILE.rewrite.attempts
    for attempt in range(1, attempts + 1):
        step = advance(
            subject(Stage.REWRITE, attempt), answer(RewriteInput(1, CAPTION, attempt), passes=False), PROFILE
        )
        assert step.stage is Stage.REWRITE
        assert step.verdict.reason == "unchanged"
        if attempt < attempts:
            assert (step.state, step.attempt) == (ItemState.READY, attempt + 1)
        else:
            assert (step.state, step.attempt) == (ItemState.REJECTED, attempts)


def test_too_long_a_caption_is_rejected_without_another_attempt() -> None:
    step = advance(subject(Stage.REWRITE), RewriteOutput(1, None, False, 99, 0, 1), PROFILE)
    assert (step.state, step.verdict.reason) == (ItemState.REJECTED, "caption_too_long")


def test_a_rewrite_without_a_changed_noun_is_tried_again() -> None:
    step = advance(subject(Stage.REWRITE), RewriteOutput(1, "a cat on the mat", False, 5, 5, 1), PROFILE)
    assert (step.state, step.attempt, step.verdict.reason) == (ItemState.READY, 2, "no_noun_changed")


def test_the_second_caption_is_the_cleaned_answer() -> None:
    step = advance(subject(Stage.REWRITE), RewriteOutput(1, ' "a dog on a mat"\n', False, 5, 5, 1), PROFILE)
    assert step.rewritten == ("a dog on a mat", ("cat",), ("dog",))


@pytest.mark.parametrize("scores", [{}, {"clip_image_cosine": float("nan")}, {"clip_text_cosine": 0.95}])
def test_a_missing_score_never_counts_as_keep(scores: dict[str, float]) -> None:
    step = advance(subject(Stage.COMPARE), CompareOutput(1, scores), PROFILE)
    assert (step.state, step.verdict.reason) == (ItemState.REJECTED, "score_missing")


@pytest.mark.parametrize("missing", SCORED)
def test_a_region_with_a_missing_score_is_rejected(missing: str) -> None:
    scores = {key: value for key, value in SCORED.items() if key != missing}
    output = DescribeOutput(1, (Description(0, "a cat", "a dog", scores), Description(1, "a cat", "a dog", SCORED)))
    step = advance(subject(Stage.DESCRIBE), output, PROFILE)
    assert [verdict.reason for verdict in step.parts] == ["score_missing", None]


def test_regions_that_fail_are_dropped_and_the_rest_go_on() -> None:
    bad = Description(0, "a cat", "", SCORED)
    output = DescribeOutput(1, (bad, Description(1, "a cat", "a dog", SCORED)))
    step = advance(subject(Stage.DESCRIBE), output, PROFILE)
    assert (step.stage, step.state) == (Stage.CONTRAST, ItemState.READY)
    assert [verdict.passed for verdict in step.parts] == [False, True]
    assert step.left == {1: left_image(PROFILE, CAPTION, 1, 1)}


def test_a_region_that_a_stage_left_out_is_not_kept() -> None:
    described = advance(subject(Stage.DESCRIBE), DescribeOutput(1, ()), PROFILE)
    contrasted = advance(subject(Stage.CONTRAST), ContrastOutput(1, (Difference(1, "It changed."),)), PROFILE)
    rendered = advance(subject(Stage.RENDER), RenderOutput(1, ()), PROFILE)
    assert (described.state, described.verdict.reason) == (ItemState.REJECTED, "description_missing")
    assert [verdict.reason for verdict in contrasted.parts] == ["difference_missing", None]
    assert contrasted.state is ItemState.READY
    assert (rendered.state, rendered.verdict.reason) == (ItemState.REJECTED, "picture_missing")


def test_another_stages_or_items_output_is_refused() -> None:
    output = answer(INPUTS[Stage.COMPARE])
    with pytest.raises(ValueError, match="compare"):
        advance(subject(Stage.LOCATE), output, PROFILE)
    with pytest.raises(ValueError, match="item 2"):
        advance(dataclasses.replace(subject(Stage.COMPARE), item=2), output, PROFILE)
