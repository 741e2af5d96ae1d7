"""The laws of erase: which boxes of which image are taken out, with which seed; nothing found is no fault."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgdiffd.method.messages import CLIP_IMAGE_COSINE, Box
from imgdiffd.method.profile import load_profile
from imgdiffd.method.removal import erase_seed, judge_erased
from imgdiffd.method.removal_messages import EraseInput, EraseOutput, FoundBox
from imgdiffd.stages.erase import at_removal_size, erase
from imgdiffd.stages.images import Images
from imgdiffd.testing.models import FakeClip, FakeEraser, FakeSegmenter, canvas, fake_models

PX = 64
DEFAULT = load_profile("default")
PROFILE = DEFAULT.model_copy(update={"removal": DEFAULT.removal.model_copy(update={"picture_px": PX})})
OBJECT = (8, 8, 24, 24)
OTHER = (40, 40, 60, 60)
SAME = (32, 0, 64, 32)
IMAGE1, IMAGE2 = "000000/5-1-1.png", "000000/5-1-2.png"
ENTRY = EraseInput(5, IMAGE1, IMAGE2, "a red ball", 1)


class Scene:
    """A pair on green with OBJECT red in image 1 and blue in image 2, OTHER white in image 2 only."""

    def __init__(self, root: Path, *boxes: list[Box]) -> None:
        self.images = Images(root, torch.device("cpu"))
        first = canvas("green", PX, PX, ("red", OBJECT))
        second = canvas("green", PX, PX, ("blue", OBJECT), ("white", OTHER))
        self.images.write({IMAGE1: first, IMAGE2: second, "000000/6-1-1.png": first, "000000/6-1-2.png": second})
        self.pair = (first, second)
        self.segmenter, self.eraser = FakeSegmenter(*boxes), FakeEraser()
        self.models = fake_models(segmenter=self.segmenter, clip=FakeClip(), eraser=self.eraser)

    def erase(self, *inputs: EraseInput) -> tuple[EraseOutput, ...]:
        return erase(self.models, PROFILE, inputs or [ENTRY], self.images)


def test_an_object_found_in_image_2_is_erased_from_image_2(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [], [OTHER])
    (made,) = scene.erase()[0].erasures
    assert (made.item, made.image, made.index, made.box, made.size_px) == (5, 2, 0, OTHER, PX)
    assert made.source == IMAGE2
    (hole,) = scene.eraser.asked
    assert torch.equal(hole.image, scene.pair[1])
    assert hole.mask.sum() == 20 * 20
    assert torch.equal(scene.images.read(made.erased), canvas("green", PX, PX, ("blue", OBJECT)))


def test_a_box_whose_crops_are_alike_is_left_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [SAME, OBJECT], [SAME])
    (made,) = scene.erase()[0].erasures
    assert made.box == OBJECT
    assert made.cosine == pytest.approx(0, abs=1e-6)


def test_an_image_without_masks_yields_nothing_and_stops_nobody(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [], [], [OBJECT], [])
    mate = EraseInput(6, "000000/6-1-1.png", "000000/6-1-2.png", "a red ball", 2)
    empty, full = scene.erase(ENTRY, mate)
    assert empty == EraseOutput(5, ())
    assert [each.item for each in full.erasures] == [6]


def test_the_scripts_take_pairs_with_a_changed_noun_in_both_captions(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [OBJECT], [])
    both = PROFILE.removal.model_copy(update={"noun_rule": load_profile("scripts").removal.noun_rule})
    profile = PROFILE.model_copy(update={"removal": both})
    one, other = replace(ENTRY, nouns2=("dog",)), replace(ENTRY, item=6, nouns1=("cat",), nouns2=("dog",))
    refused, taken = erase(scene.models, profile, [one, other], scene.images)
    assert refused == EraseOutput(5, (), nouns=False)
    assert judge_erased(refused, both)[0].reason == "no_noun_changed"
    assert [each.box for each in taken.erasures] == [OBJECT]
    assert len(scene.segmenter.shown) == 2


def test_a_batch_without_any_object_erases_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [], [SAME])
    assert scene.erase() == (EraseOutput(5, (), (FoundBox(2, SAME, {CLIP_IMAGE_COSINE: 1.0}),)),)
    assert scene.eraser.asked == []
    assert erase(scene.models, PROFILE, [], scene.images) == ()


def test_every_object_is_erased_alone_with_its_own_seed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [OBJECT], [OTHER, OBJECT])
    made = scene.erase()[0].erasures
    assert [(each.image, each.index) for each in made] == [(1, 0), (2, 0), (2, 1)]
    assert [each.seed for each in made] == [erase_seed(PROFILE, ENTRY, each.image, each.index) for each in made]
    assert [hole.seed for hole in scene.eraser.asked] == [each.seed for each in made]
    assert len({each.seed for each in made}) == len({each.erased for each in made}) == 3
    for hole, each in zip(scene.eraser.asked, made, strict=True):
        assert torch.equal(hole.image, scene.pair[each.image - 1])


def test_most_different_object_comes_first_with_its_own_mask(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [], [OTHER, OBJECT])
    made = scene.erase()[0].erasures
    assert [each.box for each in made] == [OBJECT, OTHER]
    assert made[0].cosine < made[1].cosine
    assert [int(hole.mask.sum()) for hole in scene.eraser.asked] == [16 * 16, 20 * 20]


def test_larger_images_are_erased_at_the_removal_size(tmp_path: Path) -> None:
    scene = Scene(tmp_path, [OBJECT], [])
    large = [each.repeat_interleave(2, 1).repeat_interleave(2, 2) for each in scene.pair]
    scene.images.write({IMAGE1: large[0], IMAGE2: large[1]})
    (made,) = scene.erase()[0].erasures
    assert {tuple(image.shape) for image in scene.segmenter.shown} == {(3, PX, PX)}
    assert (made.box, made.size_px) == (OBJECT, PX)
    assert scene.images.read(made.erased).shape == (3, PX, PX)


def test_images_are_resized_as_pillow_does_it() -> None:
    pixels = torch.randint(0, 256, (3, 96, 96), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).resize((64, 64), Image.Resampling.BICUBIC)
    wanted = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert (at_removal_size(pixels, 64).int() - wanted.int()).abs().max() <= 1
    assert at_removal_size(pixels, 96) is pixels
