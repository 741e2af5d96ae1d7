"""What the judge is shown and asked, and what is kept of what it says."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from imgdiffd import stages
from imgdiffd.errors import StageError
from imgdiffd.method.messages import VetInput, VetOutput
from imgdiffd.models.judge import Judgement
from imgdiffd.pipeline import Stage
from imgdiffd.stages.drawing import joined
from imgdiffd.stages.images import Images
from imgdiffd.stages.vet import vet
from imgdiffd.testing.models import FakeJudge, canvas, fake_models
from tests.fakes.answers import VETTED

W, H = 64, 48


@pytest.fixture
def images(tmp_path: Path) -> Images:
    found = Images(tmp_path, torch.device("cpu"))
    found.write({"1.png": canvas("green", W, H), "2.png": canvas("white", W, H)})
    return found


def say(shown: Tensor) -> Judgement:
    """Natural is what is green on the left."""
    green = shown[:, 0, 0].tolist() == [0, 255, 0]
    return Judgement("Yes." if green else "no", 0.75 if green else math.nan)


def test_the_judge_sees_the_pair_with_the_original_on_the_left(images: Images) -> None:
    judge = FakeJudge(say)
    vet(fake_models(judge=judge), VETTED, [VetInput(7, "1.png", "2.png")], images)
    ((shown, asked),) = judge.asked
    assert torch.equal(shown, joined(images.read("1.png"), images.read("2.png"), VETTED.contrast.bar_px))
    assert asked == (
        "Please determine if the content of these two images is reasonable. Answer only with 'yes' or 'no'."
    )


def test_answers_and_finite_scores_return_to_their_item(images: Images) -> None:
    inputs = [VetInput(3, "2.png", "1.png"), VetInput(9, "1.png", "2.png")]
    outputs = stages.run(Stage.VET, fake_models(judge=FakeJudge(say)), VETTED, inputs, images)
    assert outputs == (VetOutput(3, "no", {}), VetOutput(9, "Yes.", {"yes_probability": 0.75}))


def test_a_worker_without_a_judge_says_so(images: Images) -> None:
    with pytest.raises(StageError, match="the judge is not loaded"):
        vet(fake_models(), VETTED, [VetInput(7, "1.png", "2.png")], images)
