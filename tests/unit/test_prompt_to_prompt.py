"""The laws of fused Prompt-to-Prompt, against a plain implementation that stores every attention map."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from imgdiffd.kernels import prompt_to_prompt as module
from imgdiffd.kernels.attention import attention
from imgdiffd.kernels.edits import Injection, edit_pairs, injected_steps, refinement_mapper, replacement_mapper
from imgdiffd.kernels.prompt_to_prompt import PairController
from tests.tiny import TEXT_WIDTH, tiny_unet

TOKENS = 12
STEPS = 10
BEGIN, END = 90, 91
PAIRS = [  # a token a letter: one word replaced, longer, shorter, all but the ends changed
    ("a b c d", "a E c d"),
    ("a b c d", "a fg b c d hb"),
    ("a bb c a d e", "a b c"),
    ("a b", "c d e f g h i j"),
]
WORDS = [("a b c d", "a E c d"), ("a bb c d", "a b c fgh"), ("ab c d", "abc c d"), ("a b", "a b")]  # one for one


def tokenize(caption: str) -> list[int]:
    return [BEGIN, *(ord(letter) % 90 for letter in caption if letter != " "), END]


IDS = [(tokenize(source), tokenize(target)) for source, target in PAIRS]


class PlainAttention:
    """The reference: the whole map, whose conditional half is edited before it meets the values."""

    def __init__(self, pairs: int, guided: bool, edit: Callable[[Tensor, Tensor, bool], Tensor]) -> None:
        self.pairs, self.unguided, self.edit = pairs, 2 * pairs if guided else 0, edit

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            project(each).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project, each in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        maps = (q @ k.mT * attn.scale).softmax(-1)
        source, target = maps[self.unguided :].chunk(2)
        edited = self.edit(source, target, encoder_hidden_states is not None)
        out = torch.cat([maps[: self.unguided], source, edited]) @ v
        return attn.to_out[0](out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def word_tokens(caption: str, wanted: str) -> list[int]:
    """Where the tokens of the word `wanted` stand: a letter a token, behind the begin mark."""
    found: list[int] = []
    at = 1
    for word in caption.split():
        found += range(at, at + len(word)) if word.lower() == wanted.lower() else ()
        at += len(word)
    return found


def plain_replace(source: str, target: str) -> Tensor:
    """The word-for-word matrix, walked as in the reference, here over every word."""
    matrix, at, to = torch.zeros(TOKENS, TOKENS), 1, 1
    matrix[0, 0] = 1
    for one, other in zip(source.split(), target.split(), strict=True):
        for i in range(len(one)):
            for j in range(len(other)):
                matrix[at + i, to + j] = 1 / len(other) if len(one) != len(other) else float(i == j)
        at, to = at + len(one), to + len(other)
    matrix[at, to] = 1
    for place in range(to + 1, TOKENS):
        matrix[place, place] = 1
    return matrix


def in_span(step: int, span: tuple[float, float]) -> bool:
    return int(span[0] * STEPS + 1e-6) <= step < int(span[1] * STEPS + 1e-6)


def plain_edit(options: dict[str, Any], step: int) -> Callable[[Tensor, Tensor, bool], Tensor]:
    """Written on maps in the reference's order: replace or refine, then reweight, then the words' steps."""
    pairs, edit = options["pairs"], options["edit"]

    def edited(pair: tuple[str, str], base: Tensor, own: Tensor) -> Tensor:
        if edit == "refine":
            mapper, alpha = refinement_mapper(tokenize(pair[0]), tokenize(pair[1]), TOKENS)
            weight = torch.tensor(alpha)
            out = base[..., mapper] * weight + own * (1 - weight)
        elif edit == "replace":
            out = torch.einsum("hpw,wn->hpn", base, plain_replace(*pair))
        else:
            out = base
        equalizer = torch.ones(TOKENS)
        for word, factor in options["reweight"].items():
            equalizer[word_tokens(pair[1], word)] = factor
        alpha_words = torch.full((TOKENS,), float(in_span(step, (0, options["cross_fraction"]))))
        for word, span in options["word_spans"].items():
            alpha_words[word_tokens(pair[1], word)] = float(in_span(step, span))
        return out * equalizer * alpha_words + (1 - alpha_words) * own

    def change(source: Tensor, target: Tensor, cross: bool) -> Tensor:
        if cross:
            return torch.stack([edited(*each) for each in zip(pairs, source, target, strict=True)])
        inside = step < options["self_fraction"] * STEPS and target.shape[-1] <= options["self_max_tokens"]
        return source if inside else target

    return change


class Draws:
    """One set of UNet inputs for n pairs: [unguided, guided] rows of sources, then targets."""

    def __init__(self, pairs: int, guided: bool = True, zero: bool = True) -> None:
        generator = torch.Generator().manual_seed(pairs)
        rows = (4 if guided else 2) * pairs
        self.guided = guided
        self.latents = torch.randn(rows, 4, 16, 16, generator=generator)
        self.text = torch.randn(2 * pairs, TOKENS, 2 * TEXT_WIDTH, generator=generator)
        self.empty = torch.randn(1, TOKENS, 2 * TEXT_WIDTH, generator=generator) * (not zero)
        self.unguided_text = None if zero else self.empty
        self.rows = torch.cat([self.empty.expand(2 * pairs, -1, -1), self.text]) if guided else self.text
        self.added = {
            "text_embeds": torch.randn(rows, TEXT_WIDTH, generator=generator),
            "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32]]).expand(rows, -1),
        }

    def predict(self, unet: nn.Module) -> Tensor:
        with torch.no_grad():
            return unet(  # type: ignore[no-any-return]
                self.latents, 500, encoder_hidden_states=self.rows, added_cond_kwargs=self.added, return_dict=False
            )[0]


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return tiny_unet()  # type: ignore[no-any-return]


@contextmanager
def controlled(unet: nn.Module) -> Iterator[PairController]:
    control = PairController(unet)
    try:
        yield control
    finally:
        control.remove()


def options(pairs: int, captions: list[tuple[str, str]] | None = None, **changes: Any) -> dict[str, Any]:
    chosen = captions or (WORDS if changes.get("edit") == "replace" else PAIRS)[:pairs]
    numbers = {"edit": "refine", "cross_fraction": 0.8, "self_fraction": 0.4, "self_max_tokens": 64}
    return numbers | {"pairs": chosen, "reweight": {}, "word_spans": {}} | changes


def plan_of(options: dict[str, Any]) -> Injection:
    return edit_pairs(tokenize=tokenize, tokens=TOKENS, **options)


def plan(pairs: int, **changes: Any) -> Injection:
    return plan_of(options(pairs, **changes))


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def fused(unet: nn.Module, draws: Draws, injection: Injection | None, step: int) -> Tensor:
    with (
        controlled(unet) as control,
        control.painting(draws.text, draws.unguided_text, guided=draws.guided, injection=injection, steps=STEPS),
        torch.no_grad(),
    ):
        control.enter_step(step)
        return draws.predict(unet)


def plain(unet: nn.Module, draws: Draws, options: dict[str, Any], step: int) -> Tensor:
    before = dict(unet.attn_processors)  # type: ignore[arg-type]
    unet.set_attn_processor(PlainAttention(len(draws.text) // 2, draws.guided, plain_edit(options, step)))  # type: ignore[operator]
    try:
        return draws.predict(unet)
    finally:
        unet.set_attn_processor(before)  # type: ignore[operator]


@pytest.mark.parametrize("pairs", [1, 2, 3, 4])
@pytest.mark.parametrize("step", [0, 5, 9], ids=["both injections", "cross only", "neither"])
def test_fused_injection_equals_the_plain_one(unet: nn.Module, pairs: int, step: int) -> None:
    draws, given = Draws(pairs), options(pairs)
    assert relative(fused(unet, draws, plan_of(given), step), plain(unet, draws, given, step)) <= 1e-5


WEIGHTS = {"c": 3.0, "a": -0.5, "fgh": 0.0, "nowhere": 9.0}
SPANS = {"c": (0.2, 0.5), "d": (0.0, 1.0), "E": (0.0, 0.0), "nowhere": (0.3, 0.6)}


@pytest.mark.parametrize("pairs", [1, 4])
@pytest.mark.parametrize("edit", ["refine", "replace", "none"])
@pytest.mark.parametrize("reweight", [{}, WEIGHTS], ids=["even", "reweighted"])
@pytest.mark.parametrize("word_spans", [{}, SPANS], ids=["all words", "word steps"])
def test_every_edit_equals_the_plain_one(
    unet: nn.Module, pairs: int, edit: str, reweight: dict[str, float], word_spans: dict[str, tuple[float, float]]
) -> None:
    draws = Draws(pairs)
    given = options(pairs, edit=edit, reweight=reweight, word_spans=word_spans, cross_fraction=0.4)
    for step in (0, 3, 4, 6):
        assert relative(fused(unet, draws, plan_of(given), step), plain(unet, draws, given, step)) <= 1e-5, step


@pytest.mark.parametrize("edit", ["replace", "none"])
@pytest.mark.parametrize(("guided", "zero"), [(False, True), (True, False)], ids=["unguided", "encoded empty prompt"])
def test_every_edit_does_so_without_guidance_and_with_an_encoded_empty_prompt(
    unet: nn.Module, guided: bool, zero: bool, edit: str
) -> None:
    draws, given = Draws(3, guided, zero), options(3, edit=edit, reweight=WEIGHTS, word_spans=SPANS)
    assert relative(fused(unet, draws, plan_of(given), 2), plain(unet, draws, given, 2)) <= 1e-5


@pytest.mark.parametrize("self_max_tokens", [0, 64, 256])
def test_self_injection_reaches_the_layers_of_its_resolutions_only(unet: nn.Module, self_max_tokens: int) -> None:
    draws, given = Draws(2), options(2, self_max_tokens=self_max_tokens)
    wanted = plain(unet, draws, given, 0)
    assert relative(fused(unet, draws, plan_of(given), 0), wanted) <= 1e-5
    for other in {0, 64, 256} - {self_max_tokens}:
        assert relative(fused(unet, draws, plan(2, self_max_tokens=other), 0), wanted) > 1e-4


@pytest.mark.parametrize("step", [0, 5, 9])
@pytest.mark.parametrize(("guided", "zero"), [(False, True), (True, False)], ids=["unguided", "encoded empty prompt"])
def test_it_does_so_without_guidance_and_with_an_encoded_empty_prompt(
    unet: nn.Module, guided: bool, zero: bool, step: int
) -> None:
    draws, given = Draws(3, guided, zero), options(3)
    assert relative(fused(unet, draws, plan_of(given), step), plain(unet, draws, given, step)) <= 1e-5


def test_a_pass_through_all_steps_answers_as_each_step_alone(unet: nn.Module) -> None:
    draws, injection = Draws(2), plan(2, reweight=WEIGHTS, word_spans=SPANS, cross_fraction=0.4)
    alone = [fused(unet, draws, injection, step) for step in range(STEPS)]
    with (
        controlled(unet) as control,
        control.painting(draws.text, None, guided=True, injection=injection, steps=STEPS),
    ):
        for step, wanted in enumerate(alone):
            control.enter_step(step)
            assert torch.equal(draws.predict(unet), wanted)


@pytest.mark.parametrize(("edit", "calls"), [("refine", 2), ("replace", 1), ("none", 1)])
def test_the_second_attention_is_left_out_where_nothing_is_kept(
    unet: nn.Module, monkeypatch: pytest.MonkeyPatch, edit: str, calls: int
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(module, "attention", lambda q, k, v: seen.append(k.shape[2]) or attention(q, k, v))  # type: ignore[func-returns-value]
    layers = sum(getattr(each, "is_cross_attention", False) for each in unet.modules())
    fused(unet, Draws(2), plan(2, edit=edit), 0)
    assert seen.count(TOKENS) == calls * layers


def test_leaving_it_out_changes_no_bit(unet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    draws, injection = Draws(2), plan(2, edit="replace")
    without = fused(unet, draws, injection, 0)
    shares = Injection.shares
    monkeypatch.setattr(Injection, "shares", lambda *args: (shares(*args)[0], torch.zeros(2, TOKENS)))
    assert torch.equal(fused(unet, draws, injection, 0), without)


class Shapes(TorchDispatchMode):
    """The shapes of all tensors made inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple) else (result,):
            if isinstance(each, Tensor):
                self.seen.add(tuple(each.shape))
        return result


@pytest.mark.parametrize("edit", ["refine", "replace", "none"])
def test_no_attention_map_is_ever_made(unet: nn.Module, edit: str) -> None:
    draws, given = Draws(2), options(2, edit=edit, reweight=WEIGHTS, word_spans=SPANS, self_max_tokens=256)
    maps = {(256, 256), (64, 64), (256, TOKENS), (64, TOKENS)}  # queries × keys, of no other tensor's two last sides
    with Shapes() as ours:
        fused(unet, draws, plan_of(given), 2)
    with Shapes() as theirs:
        plain(unet, draws, given, 2)
    attended = {shape for shape in ours.seen if len(shape) == 4}
    assert maps <= {shape[-2:] for shape in theirs.seen}
    assert not maps & {shape[-2:] for shape in attended}


def test_only_targets_under_guidance_change(unet: nn.Module) -> None:
    draws = Draws(2)
    injected, free = fused(unet, draws, plan(2), 0), fused(unet, draws, None, 0)
    torch.testing.assert_close(injected[:6], free[:6], rtol=1e-5, atol=1e-5)
    assert relative(injected[6:], free[6:]) > 1e-2


@pytest.mark.parametrize("wrong", ["mapper", "kept", "no second attention", "spans", "values", "halves"])
def test_the_comparison_sees_a_wrong_kernel(unet: nn.Module, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    draws, given = Draws(2), options(2, reweight=WEIGHTS, word_spans=SPANS)
    injection = right = plan_of(given)
    if wrong == "mapper":
        injection = replace(right, carried=right.carried.roll(1, dims=1))
    elif wrong == "kept":
        injection = replace(right, kept=torch.ones_like(right.kept))
    elif wrong == "no second attention":
        injection = replace(right, kept=torch.zeros_like(right.kept), span_of=torch.zeros_like(right.span_of))
    elif wrong == "spans":
        injection = replace(right, span_of=torch.zeros_like(right.span_of))
    else:
        swap = {"values": -1, "halves": 0}[wrong]
        monkeypatch.setattr(module, "attention", lambda q, k, v: attention(q, k, v.roll(v.shape[swap] // 2, swap)))
    assert relative(fused(unet, draws, injection, 0), plain(unet, draws, given, 0)) > 1e-3


def test_without_injection_and_outside_a_pass_the_unet_answers_as_the_stock_one(unet: nn.Module) -> None:
    draws = Draws(2)
    stock = draws.predict(unet)
    with controlled(unet):
        assert relative(draws.predict(unet), stock) <= 1e-5
    assert relative(fused(unet, draws, None, 0), stock) <= 1e-5
    assert torch.equal(draws.predict(unet), stock)  # and the controller has left


def test_the_pass_ends_when_painting_raises(unet: nn.Module) -> None:
    draws = Draws(1)
    with controlled(unet) as control:
        with pytest.raises(KeyboardInterrupt), control.painting(draws.text, None, guided=True, injection=None, steps=1):
            raise KeyboardInterrupt
        assert control.current is None
        with pytest.raises(RuntimeError, match="outside"):
            control.enter_step(0)


def test_text_is_projected_once_a_pass_and_never_for_the_zero_prompt(unet: nn.Module) -> None:
    draws, rows = Draws(1), []
    layers: list[Any] = [each for each in unet.modules() if getattr(each, "is_cross_attention", False)]
    hooks = [layer.to_k.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0]))) for layer in layers]
    with controlled(unet) as control, control.painting(draws.text, None, guided=True, injection=plan(1), steps=STEPS):
        for step in range(3):
            control.enter_step(step)
            draws.predict(unet)
    for hook in hooks:
        hook.remove()
    assert rows == [2] * len(layers)


def test_injected_layers_do_not_project_the_targets_queries_and_keys(unet: nn.Module) -> None:
    draws, rows = Draws(2), {}
    layer = next(
        each
        for name, each in unet.named_modules()
        if name.endswith("mid_block.attentions.0.transformer_blocks.0.attn1")
    )
    hooks = [
        getattr(layer, name).register_forward_hook(lambda _, inputs, __, name=name: rows.update({name: len(inputs[0])}))
        for name in ("to_q", "to_k", "to_v")
    ]
    fused(unet, draws, plan(2), 0)
    for hook in hooks:
        hook.remove()
    assert rows == {"to_q": 6, "to_k": 6, "to_v": 8}


def test_a_layer_unlike_sdxls_is_refused_by_name() -> None:
    other = tiny_unet(down_block_types=("AttnDownBlock2D", "CrossAttnDownBlock2D"))
    with pytest.raises(ValueError, match=r"down_blocks\.0\.attentions\.0 has group_norm"):
        PairController(other)


def test_one_replaced_word_keeps_its_own_attention_and_all_others_take_the_sources() -> None:
    mapper, alpha = refinement_mapper(*IDS[0], 8)
    assert alpha == [1, 1, 0, 1, 1, 1, 1, 1]
    assert [position for position, weight in zip(mapper, alpha, strict=True) if weight] == [0, 1, 3, 4, 5, 6, 7]


def test_captions_of_unequal_length_align_around_the_gap() -> None:
    mapper, alpha = refinement_mapper((BEGIN, 1, 2, 3, END), (BEGIN, 1, 7, 8, 2, 3, END), 9)
    assert alpha == [1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert mapper == [0, 1, 0, 0, 2, 3, 4, 7, 8]  # padding stays where it is, as in the reference


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=7), st.lists(st.integers(0, 4), max_size=7))
def test_aligned_tokens_are_equal_in_order_and_as_many_as_can_be(source: list[int], target: list[int]) -> None:
    mapper, alpha = refinement_mapper(source, target, 7)
    aligned = [(mapper[at], at) for at in range(len(target)) if alpha[at]]
    assert all(source[one] == target[other] for one, other in aligned)
    assert [one for one, _ in aligned] == sorted({one for one, _ in aligned})
    common = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]  # the longest common subsequence
    for i, one in enumerate(source):
        for j, other in enumerate(target):
            common[i + 1][j + 1] = common[i][j] + 1 if one == other else max(common[i][j + 1], common[i + 1][j])
    assert len(aligned) == common[-1][-1]


def test_a_caption_longer_than_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit into 4"):
        refinement_mapper((1, 2, 3, 4, 5), (1,), 4)


@pytest.mark.parametrize(
    ("fraction", "steps", "wanted"), [(0.4, 50, 20), (1, 20, 20), (0, 20, 0), (0.29, 100, 29), (0.8, 21, 16)]
)
def test_a_fraction_of_the_steps_is_rounded_down(fraction: float, steps: int, wanted: int) -> None:
    assert injected_steps(fraction, steps) == wanted


def test_words_are_replaced_word_for_word_and_share_where_their_tokens_differ_in_number() -> None:
    mapper = replacement_mapper("a bb c d", "a b c fgh", tokenize, TOKENS)
    assert mapper[2:4, 2].tolist() == [1, 1]  # two tokens onto one
    assert mapper[5, 4:7].tolist() == pytest.approx([1 / 3] * 3)  # one onto three
    assert [float(mapper[at]) for at in ((0, 0), (1, 1), (4, 3), (6, 7))] == [1, 1, 1, 1]  # begin, equal words, end
    assert all(mapper[at, at] == 1 for at in range(8, TOKENS))
    assert torch.equal(replacement_mapper("a b c", "a b c", tokenize, TOKENS), torch.eye(TOKENS))


def test_replacing_needs_as_many_words_and_names_both_captions() -> None:
    with pytest.raises(ValueError, match=r"'a b c' has 3 words, but 'a b' has 2"):
        plan(1, edit="replace", captions=[("a b c", "a b")])
    with pytest.raises(ValueError, match="does not fit into 12 tokens"):
        plan(1, edit="replace", captions=[("abcdefghijk", "a")])


def test_tokens_that_are_not_those_of_the_words_are_refused_only_where_words_count() -> None:
    def odd(caption: str) -> list[int]:
        return tokenize(caption + " z") if " " in caption else tokenize(caption)

    given = options(1) | {"tokenize": odd, "tokens": TOKENS}
    edit_pairs(**given)
    with pytest.raises(ValueError, match="'a E c d' are not those of its words"):
        edit_pairs(**given | {"reweight": {"E": 2.0}})


def test_words_are_found_without_case_and_punctuation_and_the_later_entry_counts() -> None:
    injection = plan(1, captions=[("a b", "a B, b")], reweight={"b": 2.0, "B.": 3.0}, edit="none")
    assert injection.carried[0].diagonal()[:6].tolist() == [1, 1, 3, 3, 3, 1]
