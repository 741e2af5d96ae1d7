"""The judge's judgements: greedy as the model's own, with the probability of its yes, whatever the batch mates."""

from typing import Any

import pytest
import torch
from torch import Tensor

from imgdiffd.errors import BundleError, StageError
from imgdiffd.models.judge import Judge
from tests.tiny import models as tiny_models
from tests.tiny.captioners import FAMILIES
from tests.tiny.judge import save_judge

QUESTION = "please answer only yes or no : what is this ?"
NEW_TOKENS = 5


@pytest.fixture(scope="module", params=FAMILIES)
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny model of each family, whose tokenizer knows yes and no."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tmp_path_factory.mktemp("judge")
    save_judge(folder, request.param)
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def judge(parts: tuple[Any, Any]) -> Judge:
    return Judge(*parts, rows_per_pass=3)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    noise = torch.Generator().manual_seed(0)
    sizes = ((32, 68), (32, 68), (48, 40), (32, 68), (32, 68), (32, 68))
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=noise) for size in sizes]


def inputs_of(parts: Any, image: Tensor) -> Any:
    content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    return parts[1].apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )


def test_a_judgement_does_not_depend_on_its_batch_mates(judge: Judge, images: list[Tensor]) -> None:
    together = judge.judge(images, QUESTION, NEW_TOKENS)
    assert len({judgement.yes_probability for judgement in together}) == len(images)
    assert [judge.judge([image], QUESTION, NEW_TOKENS)[0] for image in images] == together
    assert judge.judge(images[::-1], QUESTION, NEW_TOKENS) == together[::-1]


def test_probability_and_answer_match_the_models_generation(judge: Judge, parts: Any, images: list[Tensor]) -> None:
    model, processor = parts
    vocabulary = processor.tokenizer.get_vocab()
    for image, judgement in zip(images, judge.judge(images, QUESTION, NEW_TOKENS), strict=True):
        inputs = inputs_of(parts, image)
        shares = model(**inputs).logits[0, -1].detach().softmax(-1)
        yes = sum(float(shares[vocabulary[word]]) for word in ("yes", "Yes"))
        no = sum(float(shares[vocabulary[word]]) for word in ("no", "No"))
        assert judgement.yes_probability == pytest.approx(yes / (yes + no), rel=1e-4)
        made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        text = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert judgement.answer == text.strip()


def test_a_checkpoints_chat_settings_change_nothing(
    judge: Judge, parts: Any, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = judge.judge(images, QUESTION, NEW_TOKENS)
    config = parts[0].generation_config
    for key, value in {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "min_new_tokens": 5}.items():
        monkeypatch.setattr(config, key, value)
    assert judge.judge(images, QUESTION, NEW_TOKENS) == plain
    assert parts[0].generation_config is config


def test_each_image_is_seen_once_in_passes_of_equal_size(judge: Judge, parts: Any, images: list[Tensor]) -> None:
    looks: list[int] = []
    passes: list[Any] = []
    model = parts[0]
    tower = getattr(model.model, "vision_tower", None) or model.model.visual
    hooks = [
        tower.register_forward_hook(lambda *_: looks.append(1)),
        model.register_forward_pre_hook(lambda _, __, given: passes.append(given["input_ids"].shape), with_kwargs=True),
    ]
    judge.judge(images, QUESTION, 2)
    for hook in hooks:
        hook.remove()
    assert {rows for rows, _ in passes} == {3}
    assert len(looks) == sum(tokens > 1 for _, tokens in passes) == 3  # five images of one size in two passes


def test_an_answer_is_cut_at_the_number_of_new_tokens(judge: Judge, images: list[Tensor]) -> None:
    (short,) = judge.judge(images[:1], QUESTION, 1)
    (long,) = judge.judge(images[:1], QUESTION, NEW_TOKENS)
    assert len(short.answer.split()) <= 1
    assert long.answer.split()[: len(short.answer.split())] == short.answer.split()
    assert short.yes_probability == long.yes_probability


def test_no_images_ask_nothing(judge: Judge) -> None:
    assert judge.judge([], QUESTION, NEW_TOKENS) == []


def test_a_question_beyond_the_context_is_refused_with_numbers(judge: Judge, images: list[Tensor]) -> None:
    with pytest.raises(StageError, match="the judge reads 256 tokens"):
        judge.judge(images[:1], "a " * 250, NEW_TOKENS)


def test_logits_that_are_no_numbers_give_no_probability(
    judge: Judge, parts: Any, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts[0].lm_head.weight, "data", torch.full_like(parts[0].lm_head.weight, float("nan")))
    (judgement,) = judge.judge(images[:1], QUESTION, NEW_TOKENS)
    assert judgement.yes_probability != judgement.yes_probability


def test_a_tokenizer_that_cannot_tell_yes_from_no_is_refused(parts: Any, tmp_path: Any) -> None:
    from transformers import AutoProcessor

    tiny_models.save_captioner(tmp_path)  # to its tokenizer both are unknown words
    with pytest.raises(BundleError, match="no token for yes"):
        Judge(parts[0], AutoProcessor.from_pretrained(tmp_path), 3)
