"""The captioner's answers: greedy as the model's own, one prefill a picture, nothing that depends on batch mates."""

from typing import Any

import pytest
import torch
from torch import Tensor

from imgdiffd.errors import StageError
from imgdiffd.models.captioner import Captioner
from tests import tiny_models

QUESTIONS = (
    ("what is this ?", "please describe the region [ 0.12 ] for the ball and the dog in the sea on the grass", "a cat"),
    ("what is the difference ?",),
    (),
    ("what is the red ball ?", "what is the cat on ?"),
)
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tmp_path_factory.mktemp("captioner")
    tiny_models.save_captioner(folder)
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def captioner(parts: tuple[Any, Any]) -> Captioner:
    return Captioner(*parts, rows_per_pass=3)


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    noise = torch.Generator().manual_seed(0)
    sizes = ((48, 48), (40, 64), (48, 48), (48, 48))
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=noise) for size in sizes]


def test_a_caption_does_not_depend_on_batch_mates_token_for_token(captioner: Captioner, pictures: list[Tensor]) -> None:
    together = captioner.answer(pictures, QUESTIONS, NEW_TOKENS)
    assert [len(answers) for answers in together] == [3, 1, 0, 2]
    for picture, questions, answers in zip(pictures, QUESTIONS, together, strict=True):
        assert captioner.answer([picture], [questions], NEW_TOKENS) == [answers]
        for question, answer in zip(questions, answers, strict=True):
            assert captioner.answer([picture], [[question]], NEW_TOKENS) == [[answer]]


def test_answers_are_those_of_the_models_own_generation(
    captioner: Captioner, parts: Any, pictures: list[Tensor]
) -> None:
    model, processor = parts
    answers = captioner.answer(pictures, QUESTIONS, NEW_TOKENS)
    for picture, questions, said in zip(pictures, QUESTIONS, answers, strict=True):
        for question, answer in zip(questions, said, strict=True):
            content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
            )
            made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            text = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            assert answer == text.strip()


def test_one_prefill_serves_all_questions_of_a_picture(
    captioner: Captioner, parts: Any, pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    forward = parts[0].forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pixel_values") is not None:
            looks.append(kwargs["input_ids"].shape)
        return forward(*args, **kwargs)

    monkeypatch.setattr(parts[0], "forward", counted)
    captioner.answer(pictures, QUESTIONS, 2)
    assert len(looks) == 3  # four pictures, one of them without a question
    assert all(rows == 1 for rows, _ in looks)


def test_every_pass_has_the_same_number_of_rows(
    captioner: Captioner, parts: Any, pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    forward = parts[0].forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pixel_values") is None:
            rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(parts[0], "forward", counted)
    captioner.answer(pictures, QUESTIONS, 2)
    assert set(rows) == {3}


def test_an_answer_is_cut_at_the_number_of_new_tokens(captioner: Captioner, pictures: list[Tensor]) -> None:
    ((long,),) = captioner.answer(pictures[:1], [["what is this ?"]], NEW_TOKENS)
    ((short,),) = captioner.answer(pictures[:1], [["what is this ?"]], 2)
    assert len(long.split()) > 2
    assert short.split() == long.split()[:2]


def test_a_question_beyond_the_context_is_refused_with_numbers(captioner: Captioner, pictures: list[Tensor]) -> None:
    with pytest.raises(StageError, match="reads 256 tokens"):
        captioner.answer(pictures[:1], [["a " * 250]], NEW_TOKENS)


def test_models_that_count_positions_from_the_picture_are_asked_each_question_whole(
    parts: Any, pictures: list[Tensor], captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts[0].model, "get_rope_index", None, raising=False)
    whole = Captioner(parts[0], parts[1], rows_per_pass=3)
    assert whole.answer(pictures, QUESTIONS, NEW_TOKENS) == captioner.answer(pictures, QUESTIONS, NEW_TOKENS)
