from pathlib import Path

import pytest
import torch
from PIL import Image

from imgdiffd.method.advance import Subject, advance
from imgdiffd.method.messages import CompareInput, GenerateInput, GenerateOutput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_sections import Abort
from imgdiffd.pipeline import Stage, seed_of
from imgdiffd.stages.compare import compare
from imgdiffd.stages.generate import generate
from imgdiffd.stages.images import Images
from imgdiffd.testing.models import FakeClip, FakePainter, canvas, fake_models

PROFILE = load_profile("mini")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path, torch.device("cpu"))


def test_a_pairs_noise_does_not_depend_on_order_or_mates(images: Images, tmp_path: Path) -> None:
    painter = FakePainter()
    models = fake_models(painter=painter)
    inputs = [GenerateInput(5, "a dog", "a cat", 0), GenerateInput(6, "a car", "a bus", 0)]
    outputs = generate(models, PROFILE, inputs, images)
    path = tmp_path / (outputs[0].image1 or "")
    first = path.read_bytes()
    again = generate(models, PROFILE, inputs[::-1], Images(tmp_path, torch.device("cpu")))
    assert again[::-1] == outputs
    assert path.read_bytes() == first
    assert [prompt.seed for prompt in painter.asked[:2]] == [output.seed for output in outputs]
    assert outputs[0].seed == seed_of(PROFILE.seed, "a dog", 0, "generate") != outputs[1].seed


def test_new_attempt_gets_new_noise_and_new_files(images: Images) -> None:
    inputs = [GenerateInput(5, "a dog", "a cat", attempt) for attempt in (0, 1)]
    first, second = generate(fake_models(painter=FakePainter()), PROFILE, inputs, images)
    assert first.seed != second.seed
    assert {first.image1, first.image2}.isdisjoint({second.image1, second.image2})


def test_output_names_files_that_exist_with_their_size(images: Images, tmp_path: Path) -> None:
    inputs = [GenerateInput(12_345, "a dog", "a cat", 2)]
    (output,) = generate(fake_models(painter=FakePainter()), PROFILE, inputs, images)
    paths = ("000012/12345-2-1.png", "000012/12345-2-2.png")
    assert (output.image1, output.image2) == paths
    for path in paths:
        with Image.open(tmp_path / path) as image:
            assert image.size == (output.width, output.height) == (PROFILE.generate.picture_px,) * 2


def test_each_pair_is_compared_with_itself(images: Images) -> None:
    for name, colour in (("1", "red"), ("2", "red"), ("3", "blue")):
        images.write({f"{name}.png": canvas(colour, 8, 8)})
    inputs = [CompareInput(1, "1.png", "2.png"), CompareInput(2, "1.png", "3.png")]
    same, different = compare(fake_models(clip=FakeClip()), PROFILE, inputs, images)
    assert (same.item, same.scores) == (1, {"clip_image_cosine": 1.0})
    assert (different.item, different.scores) == (2, {"clip_image_cosine": 0.0})


def test_score_that_is_not_a_number_is_missing_not_stored(images: Images) -> None:
    for name in ("1", "2"):
        images.write({f"{name}.png": canvas("black", 8, 8)})
    (output,) = compare(fake_models(clip=FakeClip()), PROFILE, [CompareInput(1, "1.png", "2.png")], images)
    assert output.scores == {}


ABORTS = {"a car": ("red", "blue"), "a bike": ("red", "red"), "a dog": ("white", "red"), "a void": ("black", "black")}


def with_abort(**abort: object) -> Profile:
    generate = PROFILE.generate.model_copy(update={"abort": Abort.model_validate(abort)})
    return PROFILE.model_copy(update={"generate": generate})


def painted(profile: Profile, root: Path, attempt: int = 1, **given: object) -> list[GenerateOutput]:
    previews = {caption: (canvas(one, 8, 8), canvas(two, 8, 8)) for caption, (one, two) in ABORTS.items()}
    inputs = [GenerateInput(item, caption, "a cat", attempt) for item, caption in enumerate(ABORTS, 1)]
    models = fake_models(painter=FakePainter(previews), **{"clip": FakeClip(), **given})
    return list(generate(models, profile, inputs, Images(root, torch.device("cpu"))))


def test_pairs_beyond_a_threshold_are_given_up_unwritten(tmp_path: Path) -> None:
    outputs = painted(with_abort(mode="on", below=0.2, above=0.9, finished=0.0), tmp_path)
    found = [(output.scores.get("preview_cosine"), output.image1 is None, output.image2 is None) for output in outputs]
    assert found[:2] == [(0.0, True, True), (1.0, True, True)]
    assert found[2] == (outputs[2].scores["preview_cosine"], False, False)
    assert outputs[2].scores["preview_cosine"] == pytest.approx(3**-0.5)
    assert found[3] == (None, False, False)  # its preview has no score
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["3-1-1.png", "3-1-2.png", "4-1-1.png", "4-1-2.png"]
    assert {(output.width, output.height) for output in outputs} == {(PROFILE.generate.picture_px,) * 2}


def test_shadow_mode_scores_and_writes_every_pair(tmp_path: Path) -> None:
    outputs = painted(with_abort(mode="shadow", below=0.2, above=0.9), tmp_path)
    assert all(output.image1 is not None for output in outputs)
    assert sum("preview_cosine" in output.scores for output in outputs) == 3


def test_without_previews_painting_needs_no_clip(tmp_path: Path) -> None:
    outputs = painted(with_abort(mode="off"), tmp_path, clip=None)
    assert all(output.scores == {} and output.image1 is not None for output in outputs)


def test_the_drawn_pairs_are_painted_whatever_is_seen(tmp_path: Path) -> None:
    outputs = painted(with_abort(mode="on", below=0.2, above=0.9, finished=1.0), tmp_path)
    assert all(output.image1 is not None for output in outputs)
    assert outputs[0].scores == {"preview_cosine": 0.0}


@pytest.mark.parametrize("attempt", range(1, 9))  # each draws the pairs that are finished anew
def test_what_the_stage_gives_up_the_store_rejects(tmp_path: Path, attempt: int) -> None:
    profile = with_abort(mode="on", below=0.2, above=0.9, finished=0.4)
    for caption, output in zip(ABORTS, painted(profile, tmp_path, attempt), strict=True):
        step = advance(Subject(output.item, Stage.GENERATE, attempt, caption), output, profile)
        assert step.verdict.passed is (output.image1 is not None)
