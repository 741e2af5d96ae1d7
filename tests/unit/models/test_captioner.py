"""The captioner's answers: greedy as the model's own, one prefill an image, nothing that depends on batch mates."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.errors import StageError
from imgdiffd.models import shared_prefix
from imgdiffd.models.captioner import Captioner
from imgdiffd.models.loading import load_models
from imgdiffd.models.shared_prefix import SharedPass
from imgdiffd.pipeline import Role
from tests.tiny import captioners as tiny_captioners
from tests.tiny import models as tiny_models

QUESTIONS = (
    ("what is this ?", "please describe the region [ 0.12 ] for the ball and the dog in the sea on the grass", "a cat"),
    ("what is the difference ?",),
    (),
    ("what is the red ball ?", "what is the cat on ?"),
    tuple(f"what is the region [ 0.{digit} ] ?" for digit in range(7)),  # more than are asked side by side
)
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family of models that a bundle may name."""
    made = {}
    for name, save in tiny_captioners.FAMILIES.items():
        made[name] = tmp_path_factory.mktemp(name)
        save(made[name])
    return made


def parts_in(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval(), AutoProcessor.from_pretrained(
        folder
    )


@pytest.fixture(scope="module", params=tiny_captioners.FAMILIES)
def parts(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Any, Any]:
    return parts_in(folders[request.param])


@pytest.fixture(scope="module")
def captioner(parts: tuple[Any, Any]) -> Captioner:
    return Captioner(*parts, rows_per_pass=3, note=pytest.fail)  # no family may be asked each question whole


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    noise = torch.Generator().manual_seed(0)
    sizes = ((48, 48), (40, 64), (48, 48), (48, 48), (48, 48))
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=noise) for size in sizes]


def generated(model: Any, processor: Any, image: Tensor, question: str) -> str:
    """What the model itself says, by the processors' documented way."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    text: str = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()


@contextlib.contextmanager
def counted(model: Any) -> Iterator[list[tuple[bool, Tensor]]]:
    """Every forward pass within: whether it goes over an image's tokens, and its token ids."""
    passes: list[tuple[bool, Tensor]] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tokens = kwargs["input_ids"]
        seen = int((tokens == model.config.image_token_id).sum())
        passes.append((seen > len(tokens), tokens))  # a random model may say one

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


def test_a_caption_does_not_depend_on_its_batch_mates(captioner: Captioner, images: list[Tensor]) -> None:
    together = captioner.answer(images, QUESTIONS, NEW_TOKENS)
    assert [len(answers) for answers in together] == [len(asked) for asked in QUESTIONS]
    for image, questions, answers in zip(images, QUESTIONS, together, strict=True):
        assert captioner.answer([image], [questions], NEW_TOKENS) == [answers]
        for question, answer in zip(questions, answers, strict=True):
            assert captioner.answer([image], [[question]], NEW_TOKENS) == [[answer]]


def test_answers_are_those_of_the_models_own_generation(captioner: Captioner, parts: Any, images: list[Tensor]) -> None:
    answers = captioner.answer(images, QUESTIONS, NEW_TOKENS)
    assert len({answer for said in answers for answer in said}) > 4
    for image, questions, said in zip(images, QUESTIONS, answers, strict=True):
        assert said == [generated(parts[0], parts[1], image, question) for question in questions]


def test_an_image_is_read_once_for_all_its_questions(captioner: Captioner, parts: Any, images: list[Tensor]) -> None:
    with counted(parts[0]) as passes:
        captioner.answer(images, QUESTIONS, 2)
    looks = [tokens for look, tokens in passes if look]
    assert len(looks) == 4  # five images, one of them without a question
    assert all(len(tokens) == 1 for tokens in looks)


def test_every_pass_has_the_same_number_of_rows(captioner: Captioner, parts: Any, images: list[Tensor]) -> None:
    with counted(parts[0]) as passes:
        captioner.answer(images, QUESTIONS, 2)
    assert {len(tokens) for look, tokens in passes if not look} == {3}


def test_passes_stop_as_soon_as_every_answer_has_ended(folders: dict[str, Path], images: list[Tensor]) -> None:
    model, processor = parts_in(folders["llava_next"])
    ((said,),) = Captioner(model, processor, 3).answer(images[:1], [QUESTIONS[0][:1]], NEW_TOKENS)
    words = said.split()
    last = next(place for place, word in enumerate(words) if place > 1 and word not in words[:place])
    model.generation_config.eos_token_id = processor.tokenizer.convert_tokens_to_ids(words[last])
    captioner = Captioner(model, processor, 3)
    with counted(model) as passes:
        assert captioner.answer(images[:1], [QUESTIONS[0][:1]], NEW_TOKENS) == [[" ".join(words[: last + 1])]]
    assert len(passes) == 1 + last + 1  # the image, and a pass a token


def test_an_answer_is_cut_at_the_number_of_new_tokens(captioner: Captioner, images: list[Tensor]) -> None:
    ((long,),) = captioner.answer(images[:1], [["what is this ?"]], NEW_TOKENS)
    for most in (1, 2):
        ((short,),) = captioner.answer(images[:1], [["what is this ?"]], most)
        assert len(long.split()) > most
        assert short.split() == long.split()[:most]


def test_a_question_beyond_the_context_is_refused_with_numbers(captioner: Captioner, images: list[Tensor]) -> None:
    with pytest.raises(StageError, match="reads 256 tokens"):
        captioner.answer(images[:1], [["a " * 250]], NEW_TOKENS)


def test_half_precision_shares_too(folders: dict[str, Path], images: list[Tensor]) -> None:
    captioner = Captioner(*parts_in(folders["llava_next"], torch.float16), rows_per_pass=2, note=pytest.fail)
    together = captioner.answer(images, QUESTIONS, NEW_TOKENS)
    assert captioner.answer(images[3:4], QUESTIONS[3:4], NEW_TOKENS) == together[3:4]


def test_a_model_that_cannot_share_is_asked_whole_and_says_so(folders: dict[str, Path], images: list[Tensor]) -> None:
    model, processor = parts_in(folders["llava_next"])
    model.set_attn_implementation("eager")
    notes: list[str] = []
    whole = Captioner(model, processor, 3, notes.append)
    with counted(model) as passes:
        answers = whole.answer(images, QUESTIONS, NEW_TOKENS)
    assert notes == [
        "the captioner reads an image again for each question: its attention is eager instead of torch's fused one"
    ]
    assert sum(look for look, _ in passes) == sum(map(len, QUESTIONS))
    assert answers[0] == [generated(model, processor, images[0], question) for question in QUESTIONS[0]]
    with pytest.raises(StageError, match="reads 256 tokens"):
        whole.answer(images[:1], [["a " * 250]], NEW_TOKENS)


def test_a_checkpoints_chat_settings_change_nothing(folders: dict[str, Path], images: list[Tensor]) -> None:
    """Neither where an image is shared, which never asked for them, nor where it is not."""
    for attention in ("sdpa", "eager"):
        model, processor = parts_in(folders["llava_next"])
        model.set_attn_implementation(attention)
        captioner = Captioner(model, processor, 3)
        plain = captioner.answer(images, QUESTIONS, NEW_TOKENS)
        model.generation_config.repetition_penalty = 9.0
        model.generation_config.min_new_tokens = 5
        assert captioner.answer(images, QUESTIONS, NEW_TOKENS) == plain


VICUNA = (
    "{% for m in messages %}{% if m['role'] != 'system' %}USER: {% endif %}{% for part in m['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}{% endfor %}ASSISTANT:"
)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_system_prompt_comes_before_the_image(folders: dict[str, Path], images: list[Tensor], attention: str) -> None:
    model, processor = parts_in(folders["llava_next"])
    model.set_attn_implementation(attention)
    processor.chat_template = VICUNA
    captioner = Captioner(model, processor, 3)
    told = captioner.answer(images[:1], [["what is this ?"]], NEW_TOKENS, "a cat is a dog")
    asked = "a cat is a dog USER: <image>\nwhat is this ? ASSISTANT:"
    inputs = processor(images=[images[0]], text=[asked], return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    said = processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert told == [[said.strip()]]


def _shifted(read: Callable[..., None]) -> Callable[..., None]:
    def shifting(shared: Any, row: int, inputs: Any) -> None:
        read(shared, row, inputs)
        shared._next[row] += 1

    return shifting


def _unseen(mask_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def hiding(shared: Any, real: Tensor) -> Tensor:
        mask = mask_of(shared, real)
        mask[..., 3] = False
        return mask

    return hiding


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda patch: patch(SharedPass, "read", _shifted(SharedPass.read)), id="positions"),
        pytest.param(lambda patch: patch(SharedPass, "_question_mask", _unseen(SharedPass._question_mask)), id="mask"),
        pytest.param(
            lambda patch: patch(shared_prefix, "grouped_attention", lambda q, k, v, mask, scale: torch.zeros_like(q)),
            id="attention",
        ),
    ],
)
def test_sharing_that_changes_the_logits_is_not_used(
    wrong: Callable[..., None], parts: tuple[Any, Any], images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong(monkeypatch.setattr)
    notes: list[str] = []
    whole = Captioner(parts[0], parts[1], 3, notes.append)
    assert len(notes) == 1
    assert "of their spread" in notes[0]
    assert whole.answer(images[:1], QUESTIONS[:1], 4)[0][0]


def test_loading_passes_the_note_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(str(tiny_models.save_all(tmp_path)))
    monkeypatch.setattr("imgdiffd.models.captioner.let_share", lambda model: "it is not to")
    monkeypatch.setattr("imgdiffd.models.loading._painter_tokenizer", lambda bundle: None)
    notes: list[str] = []
    load_models(bundle, [Role.CAPTIONER], torch.device("cpu"), lambda _: None, compile=False, note=notes.append)
    assert notes == ["the captioner reads an image again for each question: it is not to"]
