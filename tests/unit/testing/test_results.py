"""Made-up results pass or fail the filters as they are asked to, under every built-in profile, and name real files."""

from pathlib import Path

import pytest

from imgdiffd.job import ItemState
from imgdiffd.method.advance import Subject, advance
from imgdiffd.method.messages import (
    CompareInput,
    DescribeInput,
    GenerateInput,
    GenerateOutput,
    LocateInput,
    RegionInput,
    RenderRegion,
    RewriteInput,
    ScreenInput,
    StageInput,
    VetInput,
)
from imgdiffd.method.profile import load_profile
from imgdiffd.method.removal import choose_targets, judge_inspection
from imgdiffd.method.removal_messages import EraseInput, EraseOutput, InspectInput, InspectOutput
from imgdiffd.pipeline import Stage
from imgdiffd.testing.results import BOXES, IMAGE_PX, result, rewritten
from imgdiffd.testing.stages import OBJECTS, FakeStages

PROFILES = ("default", "paper", "scripts", "data-juicer", "mini")
CAPTION = "a cat on a mat"
PAIR = ("000000/1-1-1.png", "000000/1-1-2.png")
INPUTS: dict[Stage, StageInput] = {
    Stage.REWRITE: RewriteInput(1, CAPTION, 1),
    Stage.COMPARE: CompareInput(1, *PAIR),
    Stage.VET: VetInput(1, *PAIR),
    Stage.LOCATE: LocateInput(1, *PAIR, ("cat",), ("dog",)),
    Stage.DESCRIBE: DescribeInput(1, *PAIR, (RegionInput(0, BOXES[0]),)),
    Stage.SCREEN: ScreenInput(1, *PAIR, (RenderRegion(0, BOXES[0], 1),)),
}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("stage", INPUTS)
def test_results_pass_and_fail_every_filter_of_every_profile(name: str, stage: Stage) -> None:
    profile = load_profile(name)
    vetted = profile.model_copy(update={"natural": profile.natural.model_copy(update={"enabled": True})})
    subject = Subject(1, stage, vetted.rewrite.attempts, CAPTION, IMAGE_PX, IMAGE_PX, (0,))
    passed, failed = (advance(subject, result(INPUTS[stage], vetted, passes), vetted) for passes in (True, False))
    assert (passed.state, failed.state) == (ItemState.READY, ItemState.REJECTED)


@pytest.mark.parametrize("name", PROFILES)
def test_first_object_of_each_image_goes_a_second_leaves_traces(name: str) -> None:
    profile = load_profile(name)
    erased = result(EraseInput(1, *PAIR, CAPTION, 1), profile, objects=(1, 2))
    assert isinstance(erased, EraseOutput)
    cosines = [found.scores["clip_image_cosine"] for found in erased.found if found.image == 2]
    targets = choose_targets([found.box for found in erased.found if found.image == 2], cosines, profile.removal)
    assert {target.box for target in targets} == set(BOXES[:2])
    inspected = result(InspectInput(1, erased.erasures), profile)
    assert isinstance(inspected, InspectOutput)
    passed = [judge_inspection(each.text, each.scores, profile.removal).passed for each in inspected.objects]
    assert passed == [True, True, False]


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        (CAPTION, "a dog on a mat"),
        ("A Dog, and a cat.", "A horse, and a cat."),
        ("a bus in the park!", "a bus in the cat!"),
        ("…", "cat"),
    ],
)
def test_rewrite_replaces_one_word_by_a_new_noun(caption: str, wanted: str) -> None:
    assert rewritten(caption) == wanted


def test_every_file_that_the_fake_stages_name_is_there(tmp_path: Path) -> None:
    stages, profile = FakeStages(tmp_path), load_profile("default")
    [painted] = stages.run(profile, [GenerateInput(1, CAPTION, "a dog on a mat", 1)])
    assert isinstance(painted, GenerateOutput)
    assert (painted.image1, painted.image2) == PAIR
    stages.take_writes()()
    assert stages.caption_of(PAIR[0]) == CAPTION
    [erased] = stages.run(profile, [EraseInput(1, *PAIR, CAPTION, 1)])
    assert isinstance(erased, EraseOutput)
    assert len(erased.erasures) == sum(OBJECTS)
    stages.take_writes()()
    [inspected] = stages.run(profile, [InspectInput(1, erased.erasures)])
    assert isinstance(inspected, InspectOutput)
    stages.take_writes()()
    boxed = [name for each in inspected.objects for name in (each.with_image, each.without_image) if name]
    named = {*PAIR, *(each.erased for each in erased.erasures), *boxed}
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")} == named
