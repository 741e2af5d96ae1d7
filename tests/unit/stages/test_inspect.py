"""The laws of inspect: what is asked of which image, what is scored against what, and what a sample shows."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from imgdiffd.images.files import erased_path
from imgdiffd.method.messages import Box
from imgdiffd.method.profile import load_profile
from imgdiffd.method.removal import Inspection, RemovalSample, erased_key, original_key
from imgdiffd.method.removal_messages import Erasure
from imgdiffd.stages.describe import question
from imgdiffd.stages.images import Images
from imgdiffd.stages.inspect import finish, inspect
from imgdiffd.testing.models import FakeBlip, FakeCaptioner, canvas, fake_models

PX = 64
PROFILE = load_profile("default")
KIND = PROFILE.removal.match_kind
ORIGINAL, ERASED = original_key(KIND), erased_key(KIND)
OBJECT = (16, 16, 32, 48)
CORNER = (0, 40, 20, 64)
SOURCE = "000000/5-1-2.png"


def erasure(box: Box = OBJECT, index: int = 0) -> Erasure:
    return Erasure(5, 2, index, box, PX, 0.3, SOURCE, erased_path(SOURCE, index), seed=index)


def test_the_captioner_is_told_the_profiles_system_prompt(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda *_: "a red box")
    told = PROFILE.describe.model_copy(update={"system_prompt": "Be brief."})
    inspect(scene.models, PROFILE.model_copy(update={"describe": told}), [erasure()], scene.images)
    assert scene.captioner.told == ["Be brief."]


class Scene:
    """OBJECT and CORNER red on green in the original, nothing but green in every erased image."""

    def __init__(self, root: Path, answer: Callable[[Tensor, str], str]) -> None:
        self.root, self.images = root, Images(root, torch.device("cpu"))
        self.original = canvas("green", PX, PX, ("red", OBJECT), ("red", CORNER))
        green = canvas("green", PX, PX)
        self.images.write({SOURCE: self.original, **{erased_path(SOURCE, index): green for index in range(3)}})
        self.captioner, self.blip = FakeCaptioner(answer), FakeBlip()
        self.models = fake_models(captioner=self.captioner, blip=self.blip)

    def inspect(self, *erasures: Erasure) -> tuple[Inspection, ...]:
        return inspect(self.models, PROFILE, erasures, self.images)

    def finish(self, *inspections: Inspection) -> tuple[RemovalSample, ...]:
        return finish(PROFILE, inspections, self.images)


def test_removal_captions_are_asked_with_coordinates_in_0_to_1(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda *_: "a red ball")
    scene.inspect(erasure(), erasure(CORNER, 1))
    asked = [each for _, questions in scene.captioner.asked for each in questions]
    assert asked == [
        "Please provide a clear description for this region: [0.25, 0.25, 0.50, 0.75].",
        "Please provide a clear description for this region: [0.00, 0.62, 0.31, 1.00].",
    ]
    assert asked[0] == question(PROFILE.describe, OBJECT, PX, PX)
    assert all(0 <= float(number) <= 1 for each in asked for number in re.findall(r"[\d.]*\d", each))


def test_the_captioner_sees_the_whole_original(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda *_: "a red ball")
    scene.inspect(erasure())
    ((shown, _),) = scene.captioner.asked
    assert torch.equal(shown, scene.original)


def test_a_text_is_scored_against_original_and_erased_crop(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda *_: "a red ball")
    (made,) = scene.inspect(erasure())
    assert made.scores == {ORIGINAL: 0.9, ERASED: 0.1}
    assert scene.blip.asked == [("red", OBJECT, "a red ball"), ("green", OBJECT, "a red ball")]


def test_texts_stay_with_their_erasure_in_a_batch(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda _, asked: "a red ball" if "0.75" in asked else "a green sea")
    first, second = scene.inspect(erasure(), erasure(CORNER, 1))
    assert (first.text, first.erasure.index, first.scores[ORIGINAL]) == ("a red ball", 0, 0.9)
    assert (second.text, second.erasure.index, second.scores) == ("a green sea", 1, {ORIGINAL: 0.1, ERASED: 0.9})


@pytest.mark.parametrize(("text", "asked"), [("  ", 0), ("nothing", 2)])
def test_what_cannot_be_scored_has_no_score_and_makes_no_sample(tmp_path: Path, text: str, asked: int) -> None:
    scene = Scene(tmp_path, lambda *_: text)
    (made,) = scene.inspect(erasure())
    assert made.scores == {}
    assert len(scene.blip.asked) == asked
    assert scene.finish(made) == ()


def test_no_erasure_asks_nobody(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda *_: "a red ball")
    assert scene.inspect() == ()
    assert scene.finish() == ()
    assert scene.captioner.asked == []


def test_only_erasures_that_hold_become_samples(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda _, asked: "a red ball" if "0.75" in asked else "a green sea")
    (made,) = scene.finish(*scene.inspect(erasure(), erasure(CORNER, 1)))
    assert (made.erasure.index, made.caption) == (0, "a red ball")


def test_the_named_side_shows_the_object_in_its_red_box(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda *_: "a red ball")
    inspections = [Inspection(erasure(OBJECT, index), "a red ball", {ORIGINAL: 0.9, ERASED: 0.1}) for index in range(3)]
    samples = scene.finish(*inspections)
    for made in samples:
        shown = {"A": scene.images.read(made.left), "B": scene.images.read(made.right)}
        assert shown.pop(made.answer)[:, 32, 24].tolist() == [255, 0, 0]
        (without,) = shown.values()
        assert without[:, 32, 24].tolist() == [0, 255, 0]
        assert (tmp_path / made.left).is_file()


def test_the_red_box_is_grown_by_15_px_and_clamped_to_the_canvas(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda *_: "a red ball")
    (made,) = scene.finish(Inspection(erasure(CORNER), "a red ball", {ORIGINAL: 0.9, ERASED: 0.1}))
    boxed = scene.images.read(made.erased)
    red = (boxed == torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)).all(0)
    rows, columns = red.any(1).nonzero().flatten(), red.any(0).nonzero().flatten()
    assert (int(columns[0]), int(rows[0])) == (0, CORNER[1] - 15)
    assert (int(columns[-1]), int(rows[-1])) == (CORNER[2] + 15 - 1, PX - 1)
