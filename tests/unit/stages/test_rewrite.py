from pathlib import Path

import pytest
import torch

from imgdiffd.errors import StageError
from imgdiffd.method.messages import CompareInput, RewriteInput
from imgdiffd.method.profile import load_profile
from imgdiffd.models.rewriter import Answer
from imgdiffd.pipeline import Stage, seed_of
from imgdiffd.stages import run
from imgdiffd.stages.images import Images
from imgdiffd.stages.rewrite import rewrite
from imgdiffd.testing.models import FakeRewriter, fake_models

PROFILE = load_profile("default")
LIMIT = PROFILE.rewrite.max_caption_tokens


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path, torch.device("cpu"))


def test_caption_beyond_the_painters_tokens_is_never_asked_for(images: Images) -> None:
    rewriter = FakeRewriter(lambda caption: Answer(f"{caption} x", truncated=False))
    fits = " ".join(["word"] * (LIMIT - 2))
    inputs = [RewriteInput(1, f"{fits} more", 0), RewriteInput(2, fits, 0)]
    too_long, fitting = rewrite(fake_models(rewriter=rewriter), PROFILE, inputs, images)
    assert [caption for caption, _ in rewriter.asked] == [fits]
    assert (too_long.answer, too_long.truncated, too_long.answer_tokens) == (None, False, 0)
    assert too_long.caption_tokens == LIMIT + 1
    assert (fitting.answer, fitting.caption_tokens, fitting.answer_tokens) == (f"{fits} x", LIMIT, LIMIT + 1)


def test_batch_of_long_captions_needs_no_rewriter(images: Images) -> None:
    (output,) = rewrite(fake_models(), PROFILE, [RewriteInput(1, "word " * 100, 0)], images)
    assert output.answer is None


def test_seeds_come_from_profile_caption_attempt_and_stage(images: Images) -> None:
    rewriter = FakeRewriter(lambda caption: Answer(caption, truncated=False))
    models = fake_models(rewriter=rewriter)
    inputs = [RewriteInput(1, "a dog", 0), RewriteInput(2, "a cat", 1), RewriteInput(3, "a dog", 1)]
    together = [output.seed for output in rewrite(models, PROFILE, inputs, images)]
    alone = [rewrite(models, PROFILE, [entry], images)[0].seed for entry in reversed(inputs)]
    assert together == alone[::-1] == [seed for _, seed in rewriter.asked[:3]]
    assert together == [seed_of(PROFILE.seed, entry.caption, entry.attempt, "rewrite") for entry in inputs]
    assert len(set(together)) == 3


def test_answer_is_kept_raw_with_its_truncation(images: Images) -> None:
    rewriter = FakeRewriter(lambda caption: Answer('"A cat"\nSure!', truncated=True))
    (output,) = rewrite(fake_models(rewriter=rewriter), PROFILE, [RewriteInput(1, "a dog", 0)], images)
    assert (output.answer, output.truncated) == ('"A cat"\nSure!', True)


def test_answer_that_does_not_fit_the_models_context_is_none(images: Images) -> None:
    rewriter = FakeRewriter(lambda caption: Answer(None, truncated=False))
    (output,) = rewrite(fake_models(rewriter=rewriter), PROFILE, [RewriteInput(1, "a dog", 0)], images)
    assert (output.answer, output.caption_tokens, output.answer_tokens) == (None, 4, 0)


def test_input_of_another_stage_is_refused_by_item(images: Images) -> None:
    with pytest.raises(StageError, match=r"\[7\]") as caught:
        run(Stage.REWRITE, fake_models(), PROFILE, [CompareInput(7, "a.png", "b.png")], images)
    assert caught.value.items == (7,)
