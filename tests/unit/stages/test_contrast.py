from pathlib import Path

import pytest
import torch

from imgdiffd.method.messages import ContrastInput, ContrastRegion, RenderInput, RenderRegion
from imgdiffd.method.profile import load_profile
from imgdiffd.stages.contrast import contrast, question
from imgdiffd.stages.images import Images
from imgdiffd.stages.render import render
from imgdiffd.testing.models import FakeCaptioner, canvas, fake_models

PROFILE = load_profile("default")
BAR = PROFILE.contrast.bar_px
W, H = 64, 48
BOX = (20, 10, 50, 40)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    found = Images(tmp_path, torch.device("cpu"))
    found.write({"7-0-1.png": canvas("green", W, H)})
    found.write({"7-0-2.png": canvas("white", W, H)})
    return found


def region(left: int, index: int = 0) -> ContrastRegion:
    return ContrastRegion(index, BOX, "a dog", "a cat", left)


@pytest.mark.parametrize("left", [1, 2])
def test_images_and_descriptions_stand_on_the_same_side(images: Images, left: int) -> None:
    captioner = FakeCaptioner(lambda *_: "They differ.")
    entry = ContrastInput(7, "7-0-1.png", "7-0-2.png", (region(left),))
    (output,) = contrast(fake_models(captioner=captioner), PROFILE, [entry], images)
    assert [(d.index, d.text) for d in output.regions] == [(0, "They differ.")]
    ((shown, (asked,)),) = captioner.asked
    assert tuple(shown.shape) == (3, H, 2 * W + BAR)
    green, white = (0, 255, 0), (255, 255, 255)
    wanted = (green, white) if left == 1 else (white, green)
    assert (tuple(shown[:, 0, 0].tolist()), tuple(shown[:, 0, -1].tolist())) == wanted
    assert not shown[:, :, W : W + BAR].any()
    names = ("a dog", "a cat") if left == 1 else ("a cat", "a dog")
    assert f"left image is: {names[0]}, " in asked
    assert f"right image is: {names[1]}. " in asked


def test_the_captioner_is_told_the_profiles_system_prompt(images: Images) -> None:
    captioner = FakeCaptioner(lambda *_: "They differ.")
    told = PROFILE.contrast.model_copy(update={"system_prompt": "Be brief."})
    entry = ContrastInput(7, "7-0-1.png", "7-0-2.png", (region(1),))
    contrast(fake_models(captioner=captioner), PROFILE.model_copy(update={"contrast": told}), [entry], images)
    assert captioner.told == ["Be brief."]


def test_description_with_braces_is_not_taken_for_a_placeholder() -> None:
    asked = question(PROFILE.contrast, ContrastRegion(0, BOX, "a {right} sign", "a cat", 1))
    assert "is: a {right} sign," in asked
    assert asked.count("a cat") == 1


def test_captioner_sees_exactly_what_the_sample_shows(images: Images) -> None:
    captioner = FakeCaptioner(lambda *_: "They differ.")
    models = fake_models(captioner=captioner)
    contrast(models, PROFILE, [ContrastInput(7, "7-0-1.png", "7-0-2.png", (region(2),))], images)
    rendered = render(models, PROFILE, [RenderInput(7, "7-0-1.png", "7-0-2.png", (RenderRegion(0, BOX, 2),))], images)
    shown = captioner.asked[0][0]
    (sample,) = rendered[0].regions
    assert torch.equal(shown[:, :, :W], images.read(sample.left_image))
    assert torch.equal(shown[:, :, W + BAR :], images.read(sample.right_image))


def test_answers_return_to_their_item_and_region(images: Images) -> None:
    captioner = FakeCaptioner(lambda _, asked: asked.split("left image is: ")[1].split(",")[0])
    regions = (ContrastRegion(4, BOX, "w", "x", 1), ContrastRegion(2, BOX, "y", "z", 2))
    inputs = [
        ContrastInput(1, "7-0-1.png", "7-0-2.png", regions),
        ContrastInput(2, "7-0-1.png", "7-0-2.png", ()),
        ContrastInput(3, "7-0-1.png", "7-0-2.png", (region(1),)),
    ]
    outputs = contrast(fake_models(captioner=captioner), PROFILE, inputs, images)
    assert [(o.item, [(d.index, d.text) for d in o.regions]) for o in outputs] == [
        (1, [(4, "w"), (2, "z")]),
        (2, []),
        (3, [(0, "a dog")]),
    ]


def test_batch_without_regions_asks_nothing(images: Images) -> None:
    entry = ContrastInput(1, "7-0-1.png", "7-0-2.png", ())
    (output,) = contrast(fake_models(), PROFILE, [entry], images)
    assert output.regions == ()
