"""What the judge is shown of a finished sample, and what is kept of what it says."""

import math
from pathlib import Path

import pytest
import torch

from imgdiffd import stages
from imgdiffd.method.messages import RenderInput, RenderRegion, Screened, ScreenInput, ScreenOutput
from imgdiffd.models.judge import Judgement
from imgdiffd.pipeline import Stage
from imgdiffd.stages.drawing import joined
from imgdiffd.stages.images import Images
from imgdiffd.stages.render import render
from imgdiffd.testing.models import FakeJudge, canvas, fake_models
from tests.fakes.answers import SCREENED

W, H = 64, 48
PAIR = ("000000/7-1-1.png", "000000/7-1-2.png")
REGIONS = (RenderRegion(0, (20, 10, 50, 40), 1), RenderRegion(2, (0, 0, 9, 9), 2))


@pytest.fixture
def images(tmp_path: Path) -> Images:
    found = Images(tmp_path, torch.device("cpu"))
    found.write(dict(zip(PAIR, (canvas("green", W, H), canvas("white", W, H)), strict=True)))
    return found


def test_the_judge_sees_each_sample_exactly_as_it_is_drawn(images: Images) -> None:
    judge = FakeJudge(lambda _: Judgement("yes", 0.9))
    stages.run(Stage.SCREEN, fake_models(judge=judge), SCREENED, [ScreenInput(7, *PAIR, REGIONS)], images)
    (drawn,) = render(fake_models(), SCREENED, [RenderInput(7, *PAIR, REGIONS)], images)
    samples = [(images.read(each.left_image), images.read(each.right_image)) for each in drawn.regions]
    assert len(judge.asked) == len(samples) == 2
    for (shown, asked), sample in zip(judge.asked, samples, strict=True):
        assert torch.equal(shown, joined(*sample, SCREENED.contrast.bar_px))
        assert asked == SCREENED.natural.prompt


def test_answers_and_finite_scores_return_to_their_region(images: Images) -> None:
    said = iter((Judgement("Yes.", 0.75), Judgement("no", math.nan), Judgement("no", 0.25)))
    inputs = [ScreenInput(3, *PAIR, REGIONS), ScreenInput(5, *PAIR, ()), ScreenInput(4, *PAIR, REGIONS[:1])]
    models = fake_models(judge=FakeJudge(lambda _: next(said)))
    assert stages.run(Stage.SCREEN, models, SCREENED, inputs, images) == (
        ScreenOutput(3, (Screened(0, "Yes.", {"yes_probability": 0.75}), Screened(2, "no", {}))),
        ScreenOutput(5, ()),
        ScreenOutput(4, (Screened(0, "no", {"yes_probability": 0.25}),)),
    )
