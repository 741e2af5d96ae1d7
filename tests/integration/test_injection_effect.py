"""What injection is for: a pair differs where its captions do and hardly elsewhere (paper, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Generate
from imgdiffd.mini.ground_truth import change, find, outside
from imgdiffd.mini.scene_judge import SceneJudge
from imgdiffd.models.loading import load_models
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.pipeline import Role

pytestmark = pytest.mark.long

EDITS = [  # of one word, so that both `refine` and `replace` can align them
    ("a red ball and a blue car on the road", "a red ball and a blue tree on the road", ("car", "tree"), "blue"),
    ("a green cup on the sand", "a green fish on the sand", ("cup", "fish"), "green"),
    (
        "a yellow star and a white cube on the grass",
        "a yellow ring and a white cube on the grass",
        ("star", "ring"),
        "yellow",
    ),
    ("a purple heart on the road", "a purple house on the road", ("heart", "house"), "purple"),
]
OTHER_SEED = 1000


@dataclass(frozen=True)
class Changes:
    """Mean absolute difference of two images, 0–255, within the boxes of old and new object and beyond them."""

    inside: float
    outside: float


@pytest.fixture(scope="module")
def painter() -> Painter:
    bundle = load_bundle("mini")
    models = load_models(bundle, [Role.PAINTER], torch.device("cpu"), lambda _: None, compile=False)
    return models.need_painter


@pytest.fixture(scope="module")
def judge() -> SceneJudge:
    return SceneJudge.load(load_bundle("mini").path.parent / "judge")


def painted(painter: Painter, generate: Generate) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    prompts = [PairPrompt(one, two, seed) for seed, (one, two, _, _) in enumerate(EDITS)]
    pairs = painter.paint_pairs(prompts, generate)
    return [(as_array(one), as_array(two)) for one, two in pairs]


def as_array(image: torch.Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def independent(painter: Painter) -> list[NDArray[np.uint8]]:
    """The second captions painted from noise of their own, without injection."""
    free = load_profile("mini").generate.model_copy(update={"edit": "none"})
    prompts = [PairPrompt(one, two, OTHER_SEED + seed) for seed, (one, two, _, _) in enumerate(EDITS)]
    return [as_array(second) for _, second in painter.paint_pairs(prompts, free)]


def changes(
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    compared: Sequence[NDArray[np.uint8]],
    judge: SceneJudge,
) -> list[Changes]:
    """Of each pair's first image against `compared`, at the boxes that the pair's own objects have."""
    found = []
    for (first, second), other, (_, _, (old, new), colour) in zip(pairs, compared, EDITS, strict=True):
        seen = [find(judge(image[None])[0], (noun, colour)) for image, noun in ((first, old), (second, new))]
        boxes = [obj.box for obj in seen if obj is not None]
        if boxes:
            where = outside(first.shape[:2], boxes)
            found.append(Changes(change(first, other, ~where), change(first, other, where)))
    return found


@pytest.mark.parametrize(
    ("edit", "little"), [("refine", True), ("replace", True), ("none", False)]
)  # the same noise alone does not do it
def test_a_pair_differs_inside_the_object_far_more_than_outside(
    painter: Painter, judge: SceneJudge, independent: list[NDArray[np.uint8]], edit: str, little: bool
) -> None:
    generate = load_profile("mini").generate.model_copy(update={"edit": edit})
    pairs = painted(painter, generate)
    ours = changes(pairs, [second for _, second in pairs], judge)
    theirs = changes(pairs, independent, judge)
    assert len(ours) >= 3, "the painter did not paint what it was asked for"
    beyond = sum(each.outside for each in ours)
    assert (beyond < sum(each.outside for each in theirs) / 4) is little
    assert sum(each.inside for each in ours) > 3 * beyond
