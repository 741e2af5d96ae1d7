from pathlib import Path

import pytest
import torch

from imgdiffd.method.filters import judge_description
from imgdiffd.method.messages import DescribeInput, DescribeOutput, RegionInput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.stages.describe import describe, question
from imgdiffd.stages.images import Images
from imgdiffd.testing.models import FakeBlip, FakeCaptioner, FakeClip, canvas, fake_models

PROFILE = load_profile("default")
GROW = PROFILE.describe.match_grow_px
W, H = 100, 50
OBJECT = (40, 20, 60, 40)
CORNER = (80, 30, 100, 50)
TEXTS = "clip_text_cosine"
MATCH1, MATCH2 = "blip_itc_cosine.description1", "blip_itc_cosine.description2"


class Scene:
    """A pair with OBJECT red in image 1 and blue in image 2, and a captioner that says `texts[image]`."""

    def __init__(self, root: Path, texts: tuple[str, str]) -> None:
        self.images = Images(root, torch.device("cpu"))
        self.images.write({"1.png": canvas("green", W, H, ("red", OBJECT))})
        self.images.write({"2.png": canvas("green", W, H, ("blue", OBJECT))})
        image1 = self.images.read("1.png")
        self.captioner = FakeCaptioner(lambda image, _: texts[0] if torch.equal(image, image1) else texts[1])
        self.blip = FakeBlip()
        self.models = fake_models(captioner=self.captioner, clip=FakeClip(), blip=self.blip)

    def describe(self, *boxes: tuple[int, int, int, int], profile: Profile = PROFILE) -> DescribeOutput:
        regions = tuple(RegionInput(index, box) for index, box in enumerate(boxes))
        return describe(self.models, profile, [DescribeInput(1, "1.png", "2.png", regions)], self.images)[0]


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((40, 20, 60, 40), "[0.40, 0.40, 0.60, 0.80]"),
        ((0, 0, 100, 50), "[0.00, 0.00, 1.00, 1.00]"),
        ((33, 1, 67, 49), "[0.33, 0.02, 0.67, 0.98]"),
    ],
)
def test_region_is_asked_for_in_fractions_of_four_characters(box: tuple[int, int, int, int], said: str) -> None:
    assert question(PROFILE.describe, box, W, H) == f"Please provide a clear description for this region: {said}."


def test_question_names_the_ungrown_box_of_the_whole_image(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("red", "blue"))
    scene.describe(OBJECT, CORNER)
    wanted = [question(PROFILE.describe, box, W, H) for box in (OBJECT, CORNER)]
    assert [asked for _, asked in scene.captioner.asked] == [wanted, wanted]
    assert [tuple(image.shape) for image, _ in scene.captioner.asked] == [(3, H, W)] * 2


def test_each_description_is_matched_with_its_own_crop(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("a red ball", "a blue ball"))
    (region,) = scene.describe(OBJECT).regions
    assert (region.text1, region.text2) == ("a red ball", "a blue ball")
    assert region.scores == {TEXTS: 0.0, MATCH1: 0.9, MATCH2: 0.9}
    grown = (OBJECT[0] - GROW, OBJECT[1] - GROW, OBJECT[2] + GROW, OBJECT[3] + GROW)
    assert scene.blip.asked == [("red", grown, "a red ball"), ("blue", grown, "a blue ball")]


def test_the_captioner_is_told_the_profiles_system_prompt(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("red", "blue"))
    told = PROFILE.describe.model_copy(update={"system_prompt": "Be brief."})
    scene.describe(OBJECT, profile=PROFILE.model_copy(update={"describe": told}))
    assert scene.captioner.told == ["Be brief."]


def test_grown_crop_ends_at_the_canvas(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("red", "blue"))
    scene.describe(CORNER)
    assert {box for _, box, _ in scene.blip.asked} == {(CORNER[0] - GROW, CORNER[1] - GROW, W, H)}


NEEDED = PROFILE.model_copy(update={"scores": "needed"})


def test_texts_too_similar_have_match_scores_all_the_same(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("a red ball", "one red ball"))
    (region,) = scene.describe(OBJECT).regions
    assert region.scores == {TEXTS: pytest.approx(1.0), MATCH1: 0.9, MATCH2: 0.1}
    assert judge_description(region, PROFILE.describe).reason == "descriptions_too_similar"


def test_only_needed_scores_leave_out_texts_too_similar(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("a red ball", "one red ball"))
    (region,) = scene.describe(OBJECT, profile=NEEDED).regions
    assert region.scores == {TEXTS: pytest.approx(1.0)}
    assert scene.blip.asked == []


@pytest.mark.parametrize(
    ("texts", "scores"),
    [(("", "blue"), {MATCH2: 0.9}), (("red", "  "), {MATCH1: 0.9}), (("", ""), {})],
)
def test_an_empty_description_has_no_score_of_its_own(
    tmp_path: Path, texts: tuple[str, str], scores: dict[str, float]
) -> None:
    scene = Scene(tmp_path, texts)
    (region,) = scene.describe(OBJECT).regions
    assert region.scores == scores
    assert (region.text1, region.text2) == texts
    assert judge_description(region, PROFILE.describe).reason == "description_empty"
    (region,) = scene.describe(OBJECT, profile=NEEDED).regions
    assert region.scores == {}


def test_rejected_texts_share_no_pass_with_others(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("a red ball", "a blue ball"))
    image1 = scene.images.read("1.png")
    same = question(PROFILE.describe, CORNER, W, H)
    scene.captioner = FakeCaptioner(
        lambda image, asked: "a red ball" if asked == same or torch.equal(image, image1) else "a blue ball"
    )
    scene.models = fake_models(captioner=scene.captioner, clip=FakeClip(), blip=scene.blip)
    scene.describe(CORNER, OBJECT)
    assert [len(boxes) for boxes in scene.blip.calls] == [1, 1, 1, 1]
    assert [text for _, _, text in scene.blip.asked] == ["a red ball", "a blue ball", "a red ball", "a red ball"]


def test_descriptions_stay_with_their_item_in_a_batch(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("red", "blue"))
    inputs = [
        DescribeInput(1, "1.png", "2.png", ()),
        DescribeInput(2, "2.png", "1.png", (RegionInput(3, OBJECT),)),
        DescribeInput(3, "1.png", "2.png", (RegionInput(0, CORNER), RegionInput(1, OBJECT))),
    ]
    none, swapped, both = describe(scene.models, PROFILE, inputs, scene.images)
    assert none.regions == ()
    assert [(r.index, r.text1, r.text2) for r in swapped.regions] == [(3, "blue", "red")]
    assert [(r.index, r.scores[MATCH1]) for r in both.regions] == [(0, 0.1), (1, 0.9)]
