"""The rewriter's answers: chat template, sampling of its own, and nothing that depends on batch mates."""

from typing import Any

import pytest
import torch

from imgdiffd.models.rewriter import Answer, Rewriter
from imgdiffd.models.sampling import draw
from imgdiffd.profile import Rewrite
from tests import tiny_models

CAPTIONS = ("a red ball on the grass", "a cat", "the dog and the blue cube in the sea", "a ball", "a dog")
SAMPLED = Rewrite(
    prompt='is a sentence : "{caption}" . replace',
    temperature=0.8,
    top_p=0.95,
    max_new_tokens=12,
    attempts=1,
    max_caption_tokens=77,
)
GREEDY = SAMPLED.model_copy(update={"temperature": 0.0})


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("rewriter")
    tiny_models.save_rewriter(folder)
    return LlamaForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def rewriter(parts: tuple[Any, Any]) -> Rewriter:
    return Rewriter(*parts, rows_per_pass=3)


def test_prompt_goes_through_the_chat_template_with_the_caption_as_it_is(rewriter: Rewriter, parts: Any) -> None:
    asked = rewriter.prompt_tokens("a red ball", SAMPLED)
    assert parts[1].decode(asked) == '<s> USER : is a sentence : " a red ball " . replace ASSISTANT :'
    braces = SAMPLED.model_copy(update={"prompt": "{0} {caption} {"})
    assert (
        rewriter.prompt_tokens("a cat", braces)
        == parts[1]("<s>USER: {0} a cat { ASSISTANT:", add_special_tokens=False)["input_ids"]
    )


def test_an_answer_is_the_same_token_for_token_whatever_its_batch_mates(rewriter: Rewriter) -> None:
    together = rewriter.rewrite(CAPTIONS, range(5), SAMPLED)
    backwards = rewriter.rewrite(CAPTIONS[::-1], range(5)[::-1], SAMPLED)[::-1]
    alone = [rewriter.rewrite([caption], [seed], SAMPLED)[0] for seed, caption in enumerate(CAPTIONS)]
    assert together == alone == backwards


def test_an_answers_logits_are_bit_for_bit_the_same_whatever_its_batch_mates(parts: Any) -> None:
    """Shapes depend on the caption alone, so not even rounding knows of the batch mates."""
    seen: list[torch.Tensor] = []

    class Recording:
        def __init__(self) -> None:
            self.device, self.config = torch.device("cpu"), parts[0].config
            self.generation_config = parts[0].generation_config

        def __call__(self, **inputs: Any) -> Any:
            out = parts[0](**inputs)
            seen.append(out.logits[0, -1].clone())
            return out

    recording = Rewriter(Recording(), parts[1], rows_per_pass=3)
    once = SAMPLED.model_copy(update={"max_new_tokens": 1})
    recording.rewrite(CAPTIONS[:3], range(3), once)
    recording.rewrite(CAPTIONS[:1], [0], once)
    assert torch.equal(seen[0], seen[1])


def test_the_seed_alone_chooses_among_answers(rewriter: Rewriter) -> None:
    first = rewriter.rewrite([CAPTIONS[0]] * 4, [7, 7, 8, 9], SAMPLED)
    assert first[0] == first[1]
    assert len({answer.text for answer in first}) == 3


def test_temperature_0_is_the_models_own_greedy_generation(rewriter: Rewriter, parts: Any) -> None:
    model, tokenizer = parts
    for answer, caption in zip(rewriter.rewrite(CAPTIONS, range(5), GREEDY), CAPTIONS, strict=True):
        ids = torch.tensor([rewriter.prompt_tokens(caption, GREEDY)])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert answer.text == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_an_answer_without_an_end_is_truncated_and_one_with_an_end_is_not(rewriter: Rewriter) -> None:
    short, long = (SAMPLED.model_copy(update={"max_new_tokens": tokens}) for tokens in (1, 64))
    assert rewriter.rewrite(CAPTIONS[:1], [0], short)[0].truncated
    assert not rewriter.rewrite(CAPTIONS[:1], [0], long)[0].truncated


def test_a_caption_beyond_the_context_gets_no_answer_and_spoils_no_other(rewriter: Rewriter) -> None:
    answers = rewriter.rewrite(["a " * 300, CAPTIONS[1]], [0, 1], SAMPLED)
    assert answers[0] == Answer(None, truncated=False)
    assert answers[1] == rewriter.rewrite([CAPTIONS[1]], [1], SAMPLED)[0]


def test_passes_stop_as_soon_as_every_answer_has_ended(
    rewriter: Rewriter, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    (answer,) = rewriter.rewrite(CAPTIONS[:1], [0], SAMPLED.model_copy(update={"max_new_tokens": 64}))
    forward = parts[0].forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(parts[0], "forward", counted)
    rewriter.rewrite(CAPTIONS[:1], [0], SAMPLED.model_copy(update={"max_new_tokens": 64}))
    assert answer.text is not None
    assert len(answer.text.split()) < steps < 64  # a forward pass a word, and at least one for marks


def test_no_captions_have_no_answers(rewriter: Rewriter) -> None:
    assert rewriter.rewrite([], [], SAMPLED) == []


def test_draw_follows_the_cumulated_probability() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(4, 1)
    chosen = draw(logits, torch.tensor([0.0, 0.49, 0.51, 0.81], dtype=torch.float64), 1.0, 1.0)
    assert chosen.tolist() == [1, 1, 2, 0]


def test_draw_keeps_only_the_likeliest_that_reach_top_p() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(101, 1)
    uniform = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert set(draw(logits, uniform, 1.0, 0.5).tolist()) == {1}
    assert set(draw(logits, uniform, 1.0, 0.51).tolist()) == {1, 2}
    assert set(draw(logits, uniform, 1.0, 1e-9).tolist()) == {1}
    assert set(draw(logits, uniform, 1.0, 1.0).tolist()) == {0, 1, 2}


def test_draw_sharpens_with_low_temperature() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(101, 1)
    uniform = torch.linspace(0, 0.99, 101, dtype=torch.float64)
    assert set(draw(logits, uniform, 0.05, 1.0).tolist()) == {1}
    assert set(draw(logits, uniform, 0.0, 1.0).tolist()) == {1}
