"""The rewriter's answers: chat template, sampling of its own, and nothing that depends on batch mates."""

import copy
from typing import Any

import pytest
import torch

from imgdiffd.errors import StageError
from imgdiffd.method.profile_sections import Rewrite
from imgdiffd.models.rewriter import Answer, Rewriter
from imgdiffd.models.sampling import draw, suggestions
from tests.tiny import models as tiny_models

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


def test_the_prompt_holds_the_caption_unchanged(rewriter: Rewriter, parts: Any) -> None:
    asked = rewriter.prompt_tokens("a red ball", SAMPLED)
    assert parts[1].decode(asked) == '<s> USER : is a sentence : " a red ball " . replace ASSISTANT :'
    braces = SAMPLED.model_copy(update={"prompt": "{0} {caption} {"})
    assert (
        rewriter.prompt_tokens("a cat", braces)
        == parts[1]("<s>USER: {0} a cat { ASSISTANT:", add_special_tokens=False)["input_ids"]
    )


def test_an_answer_does_not_depend_on_its_batch_mates(rewriter: Rewriter) -> None:
    together = rewriter.rewrite(CAPTIONS, range(5), SAMPLED)
    backwards = rewriter.rewrite(CAPTIONS[::-1], range(5)[::-1], SAMPLED)[::-1]
    alone = [rewriter.rewrite([caption], [seed], SAMPLED)[0] for seed, caption in enumerate(CAPTIONS)]
    assert together == alone == backwards


class Recording:
    """A model that keeps, for each forward pass, the first row's newest logits and where its keys lie."""

    def __init__(self, model: Any) -> None:
        self.device, self.config, self.generation_config = torch.device("cpu"), model.config, model.generation_config
        self._model = model
        self.logits: list[torch.Tensor] = []
        self.keys: list[tuple[tuple[int, ...], int]] = []

    def __call__(self, **inputs: Any) -> Any:
        out = self._model(**inputs)
        self.logits.append(out.logits[0, -1].clone())
        keys = out.past_key_values.layers[0].keys
        self.keys.append((tuple(keys.shape), keys.data_ptr()))
        return out


ONCE = SAMPLED.model_copy(update={"max_new_tokens": 1})


@pytest.mark.parametrize("words", [3, 19])  # 19: a prompt as long as the step that widths are rounded to
def test_an_answers_logits_do_not_depend_on_its_batch_mates(parts: Any, words: int) -> None:
    """Shapes and kernels depend on the caption alone, so not even rounding knows of the batch mates."""
    model = Recording(parts[0])
    recorded = Rewriter(model, parts[1], rows_per_pass=3)
    caption = " ".join(["ball"] * words)
    assert words == 3 or len(recorded.prompt_tokens(caption, ONCE)) % 32 == 0
    for mates in ([], ["a cat", "the dog"], [caption, caption], [" ".join(["cat"] * 18)] * 2):
        recorded.rewrite([caption, *mates], range(1 + len(mates)), ONCE)
    passes = [logits for logits in model.logits if torch.allclose(logits, model.logits[0], atol=1e-3)]
    assert len(passes) == 4
    assert all(torch.equal(logits, model.logits[0]) for logits in passes)


def test_keys_and_values_are_allocated_once_a_pass(parts: Any) -> None:
    model = Recording(parts[0])
    Rewriter(model, parts[1], rows_per_pass=3).rewrite(CAPTIONS[:1], [0], SAMPLED)
    assert len(model.keys) > 3
    ((shape, _),) = set(model.keys)
    assert shape[0] == 3
    assert shape[2] >= 32 + SAMPLED.max_new_tokens


def test_the_seed_alone_chooses_among_answers(rewriter: Rewriter) -> None:
    first = rewriter.rewrite([CAPTIONS[0]] * 4, [7, 7, 8, 9], SAMPLED)
    assert first[0] == first[1]
    assert len({answer.text for answer in first}) == 3


def test_temperature_0_is_the_models_own_greedy_generation(rewriter: Rewriter, parts: Any) -> None:
    model, tokenizer = parts
    captions = [*CAPTIONS, *[" ".join(["ball"] * words) for words in (18, 19, 20)]]  # prompts of 31, 32 and 33 tokens
    alone = [rewriter.rewrite([caption], [0], GREEDY)[0] for caption in captions]
    assert rewriter.rewrite(captions, range(len(captions)), GREEDY) == alone
    for answer, caption in zip(alone, captions, strict=True):
        ids = torch.tensor([rewriter.prompt_tokens(caption, GREEDY)])
        made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert answer.text == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_a_repetition_penalty_is_the_librarys_own(rewriter: Rewriter, parts: Any) -> None:
    model, tokenizer = parts
    penalised = GREEDY.model_copy(update={"repetition_penalty": 1.7})
    together = rewriter.rewrite(CAPTIONS, range(5), penalised)
    assert together != rewriter.rewrite(CAPTIONS, range(5), GREEDY)
    for answer, caption in zip(together, CAPTIONS, strict=True):
        ids = torch.tensor([rewriter.prompt_tokens(caption, GREEDY)])
        told = {"max_new_tokens": 12, "do_sample": False, "repetition_penalty": 1.7}
        made = model.generate(ids, attention_mask=torch.ones_like(ids), **told)
        assert answer.text == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_nothing_of_the_checkpoints_own_sampling_is_used(
    rewriter: Rewriter, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = rewriter.rewrite(CAPTIONS, range(5), SAMPLED)
    for key, value in {"temperature": 5.0, "top_p": 0.1, "top_k": 1, "repetition_penalty": 9.0}.items():
        monkeypatch.setattr(parts[0].generation_config, key, value)
    assert rewriter.rewrite(CAPTIONS, range(5), SAMPLED) == plain
    assert suggestions(parts[0]) == {"repetition_penalty": 9.0, "top_k": 1}


@pytest.mark.parametrize(("top_k", "top_p"), [(1, 0.9), (4, 1.0), (4, 0.8), (5, 0.3), (0, 0.8), (99, 0.8)])
def test_top_k_and_top_p_leave_what_the_library_leaves(top_k: int, top_p: float) -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(1)).double()
    left = TopKLogitsWarper(min(top_k, 12))(None, logits) if top_k else logits
    left = TopPLogitsWarper(top_p)(None, left) if top_p < 1 else left
    shares = left.softmax(-1)[0]
    steps = 4000
    drawn = draw(logits.expand(steps, -1), (torch.arange(steps) + 0.5) / steps, 1.0, top_p, top_k)
    found = torch.bincount(drawn, minlength=12) / steps
    assert torch.allclose(found.double(), shares, atol=2 / steps)


def test_a_system_prompt_stands_where_the_template_puts_it(parts: Any) -> None:
    told = SAMPLED.model_copy(update={"system_prompt": "a cat is a dog"})
    tokenizer = copy.copy(parts[1])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['content'] if m['role'] == 'system' else 'USER: ' + m['content'] }}"
        " {% endfor %}ASSISTANT:"
    )
    asked = Rewriter(parts[0], tokenizer, 3).prompt_tokens("a cat", told)
    assert tokenizer.decode(asked) == '<s> a cat is a dog USER : is a sentence : " a cat " . replace ASSISTANT :'


@pytest.mark.parametrize(
    ("template", "why"),
    [("{% for m in messages if m['role'] == 'user' %}USER: {{ m['content'] }}{% endfor %}", "it is left out"),
     ("{{ raise_exception('System role not supported') }}", "System role not supported")],
)  # fmt: skip
def test_a_template_without_a_system_prompt_refuses_one(parts: Any, template: str, why: str) -> None:
    tokenizer = copy.copy(parts[1])
    tokenizer.chat_template = template
    told = SAMPLED.model_copy(update={"system_prompt": "a cat is a dog"})
    with pytest.raises(StageError, match=f"the rewriter's chat template does not take .*: {why}") as caught:
        Rewriter(parts[0], tokenizer, 3).prompt_tokens("a cat", told)
    assert "chat_template in the bundle" in str(caught.value.hint)


def test_only_an_answer_without_an_end_is_truncated(rewriter: Rewriter) -> None:
    short, long = (SAMPLED.model_copy(update={"max_new_tokens": tokens}) for tokens in (1, 64))
    assert rewriter.rewrite(CAPTIONS[:1], [0], short)[0].truncated
    assert not rewriter.rewrite(CAPTIONS[:1], [0], long)[0].truncated


def test_a_caption_beyond_the_context_spoils_no_other(rewriter: Rewriter) -> None:
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
