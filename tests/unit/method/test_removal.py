"""The laws of object removal: what is erased, what is kept, and a letter that cannot disagree with the images."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.errors import ProfileError
from imgdiffd.images.files import erased_path, removal_paths
from imgdiffd.method.messages import Box
from imgdiffd.method.profile import load_profile
from imgdiffd.method.removal import (
    RemovalSample,
    Side,
    choose_targets,
    erase_seed,
    erased_key,
    holder_of,
    judge_inspection,
    original_key,
)
from imgdiffd.method.removal_messages import EraseInput, Erasure

PROFILE = load_profile("default")
REMOVAL = PROFILE.removal
ORIGINAL, ERASED = original_key(REMOVAL.match_kind), erased_key(REMOVAL.match_kind)
GIVEN = EraseInput(12, "000000/12-1-1.png", "000000/12-1-2.png", "a cat on a mat", 1)
SIDES: tuple[Side, Side] = ("left", "right")


def erasure(image: int = 1, index: int = 0, box: Box = (320, 180, 396, 224), seed: int = 1) -> Erasure:
    source = f"000000/12-1-{image}.png"
    return Erasure(12, image, index, box, 512, 0.4, source, erased_path(source, index), seed)


def sample(holder: Side, caption: str = "a grey cat", made: Erasure | None = None) -> RemovalSample:
    made = made or erasure()
    return RemovalSample(made, caption, holder, *removal_paths(made.source, made.index))


def spread(count: int) -> Iterator[Box]:
    """Boxes that do not overlap."""
    return ((20 * n, 0, 20 * n + 10, 10) for n in range(count))


# What is erased


def test_a_box_holds_an_object_strictly_below_the_cosine_bound() -> None:
    boxes = list(spread(4))
    chosen = choose_targets(boxes, [0.9, math.nextafter(0.9, 0), 0.95, 0.2], REMOVAL)
    assert [(each.candidate, each.box) for each in chosen] == [(3, boxes[3]), (1, boxes[1])]


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_cosine_never_makes_a_target(missing: float | None) -> None:
    assert choose_targets(list(spread(1)), [missing], REMOVAL) == ()


def test_no_box_is_no_target() -> None:
    assert choose_targets([], [], REMOVAL) == ()


def test_of_overlapping_boxes_the_more_different_is_erased() -> None:
    boxes = [(0, 0, 10, 10), (1, 0, 11, 10), (30, 0, 40, 10)]
    chosen = choose_targets(boxes, [0.5, 0.3, 0.4], REMOVAL)
    assert [each.candidate for each in chosen] == [1, 2]


@given(st.lists(st.floats(-1, 1), max_size=12))
def test_at_most_three_a_image_and_they_are_the_most_different(cosines: list[float]) -> None:
    chosen = choose_targets(list(spread(len(cosines))), cosines, REMOVAL)
    assert [each.cosine for each in chosen] == sorted(score for score in cosines if score < 0.9)[:3]


# What is kept


@pytest.mark.parametrize(
    ("original", "erased", "reason"),
    [
        (0.36, 0.19, None),
        (0.35, 0.19, "description_mismatch"),
        (0.36, 0.2, "still_there"),
        (0.1, 0.5, "description_mismatch"),
        (math.nan, 0.1, "score_missing"),
        (0.5, math.nan, "score_missing"),
    ],
)
def test_an_erasure_holds_if_the_object_was_there_and_is_gone(
    original: float, erased: float, reason: str | None
) -> None:
    assert judge_inspection("a cat", {ORIGINAL: original, ERASED: erased}, REMOVAL).reason == reason


@pytest.mark.parametrize("scores", [{}, {ORIGINAL: 0.9}, {ERASED: 0.1}])
def test_a_missing_score_never_passes(scores: dict[str, float]) -> None:
    assert judge_inspection("a cat", scores, REMOVAL).reason == "score_missing"


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_description_never_passes(text: str) -> None:
    assert judge_inspection(text, {ORIGINAL: 0.9, ERASED: 0.1}, REMOVAL).reason == "description_empty"


# The question and its letter


@given(
    holder=st.sampled_from(SIDES),
    image=st.sampled_from([1, 2]),
    index=st.integers(0, 99),
    caption=st.text(max_size=30),
    seed=st.integers(0, 2**63 - 1),
)
def test_the_letter_names_the_side_that_still_holds_the_object(
    holder: Side, image: int, index: int, caption: str, seed: int
) -> None:
    made = sample(holder, caption, erasure(image, index, seed=seed))
    shown = {"A": made.left, "B": made.right}
    holding, without = removal_paths(made.erasure.source, index)
    assert shown.pop(made.answer) == holding
    assert list(shown.values()) == [without]


@given(st.integers(0, 2**63 - 1))
def test_an_erasures_side_hangs_on_its_seed_alone(seed: int) -> None:
    assert holder_of(erasure(1, 0, seed=seed)) == holder_of(erasure(2, 5, (0, 0, 9, 9), seed=seed))


def test_both_sides_are_drawn_about_equally_often() -> None:
    seeds = [
        erase_seed(PROFILE, EraseInput(0, "", "", f"caption {n}", 1), image, index)
        for n in range(50)
        for image in (1, 2)
        for index in range(3)
    ]
    assert len(set(seeds)) == len(seeds)
    lefts = sum(holder_of(erasure(seed=seed)) == "left" for seed in seeds)
    assert 110 < lefts < 190  # 300 draws; 40 off the middle is beyond four deviations


def test_seeds_depend_on_profile_and_attempt_not_on_the_item() -> None:
    first = erase_seed(PROFILE, GIVEN, 1, 0)
    moved = EraseInput(99, "000000/99-1-1.png", "000000/99-1-2.png", GIVEN.caption, GIVEN.attempt)
    assert erase_seed(PROFILE, moved, 1, 0) == first
    again = EraseInput(GIVEN.item, GIVEN.image1, GIVEN.image2, GIVEN.caption, 2)
    assert erase_seed(PROFILE, again, 1, 0) != first
    assert erase_seed(PROFILE.model_copy(update={"seed": 1}), GIVEN, 1, 0) != first


@given(st.tuples(*[st.integers(0, 512)] * 4))
def test_the_box_is_a_list_of_fractions_with_two_decimals(box: Box) -> None:
    bbox = sample("left", made=erasure(box=box)).bbox
    assert isinstance(bbox, list)
    assert all(0 <= edge <= 1 and f"{edge:.2f}" == f"{pixel / 512:.2f}" for edge, pixel in zip(bbox, box, strict=True))
    assert all(len(json.dumps(edge)) <= 4 for edge in bbox)


def test_every_object_of_a_pair_has_files_of_its_own() -> None:
    names = [
        name
        for source in (GIVEN.image1, GIVEN.image2)
        for index in range(3)
        for name in (erased_path(source, index), *removal_paths(source, index))
    ]
    assert len(set(names)) == len(names) == 18
    with pytest.raises(ValueError, match="not the name of a generated image"):
        erased_path("000000/12-1-1-e0.png", 0)


# The profile


@pytest.mark.parametrize("name", ["default", "paper", "scripts", "data-juicer"])
def test_objects_are_erased_and_judged_as_in_the_table(name: str) -> None:
    removal = load_profile(name).removal
    assert (removal.picture_px, removal.segment_px) == (512, 1024)
    assert (removal.segment_confidence, removal.segment_iou) == (0.1, 0.5)
    assert (removal.crop_cosine_below.value, removal.overlap_iou.value, removal.targets) == (0.9, 0.5, 3)
    assert (removal.prompt, removal.strength) == ("background, nothing, 8k", 0.85)
    assert (removal.guidance_scale, removal.steps) == (0, 4)
    assert (removal.original_above.value, removal.erased_below.value, removal.match_kind) == (
        0.35,
        0.2,
        "blip_itc_cosine",
    )
    assert not removal.crop_cosine_below.closed
    assert removal.original_above.closed == removal.erased_below.closed == (name == "scripts")
    assert removal.grow_px == 15


def test_a_strength_that_runs_no_step_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weak.toml"
    file.write_text('extends = "default"\n[removal]\nstrength = 0.2\n')
    with pytest.raises(ProfileError, match="removal"):
        load_profile(str(file))
