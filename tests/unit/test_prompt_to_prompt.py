"""The laws of fused Prompt-to-Prompt, against a plain implementation that stores every attention map."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from imgdiffd.kernels import prompt_to_prompt as module
from imgdiffd.kernels.attention import attention
from imgdiffd.kernels.edits import Injection, injected_steps, refine, refinement_mapper
from imgdiffd.kernels.prompt_to_prompt import PairController
from tests.tiny import TEXT_WIDTH, tiny_unet

TOKENS = 12
STEPS = 10
BEGIN, END = 90, 91
PAIRS = [  # token ids: one replaced, longer, shorter, all but the ends changed
    ((BEGIN, 1, 2, 3, 4, END), (BEGIN, 1, 5, 3, 4, END)),
    ((BEGIN, 1, 2, 3, 4, END), (BEGIN, 1, 6, 7, 2, 3, 4, 8, END)),
    ((BEGIN, 1, 2, 2, 3, 1, 4, 5, END), (BEGIN, 1, 2, 3, END)),
    ((BEGIN, 1, 2, END), (BEGIN, 3, 4, 5, 6, 7, 8, 9, 10, END)),
]


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


def plain_refine(injection: Injection, step: int) -> Callable[[Tensor, Tensor, bool], Tensor]:
    """Written with the mapper, as the reference is, and not with the matrix that the kernel uses."""
    mapped = [refinement_mapper(source, target, TOKENS) for source, target in PAIRS]
    in_cross = step < injection.cross_fraction * STEPS
    in_self = step < injection.self_fraction * STEPS

    def edit(source: Tensor, target: Tensor, cross: bool) -> Tensor:
        if cross and in_cross:
            replaced = []
            for (mapper, alpha), own, base in zip(mapped, target, source, strict=False):
                weight = torch.tensor(alpha)
                replaced.append(base[..., mapper] * weight + own * (1 - weight))
            return torch.stack(replaced)
        if not cross and in_self and target.shape[-1] <= injection.self_max_tokens:
            return source
        return target

    return edit


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


def plan(pairs: int, **changes: float) -> Injection:
    numbers = {"cross_fraction": 0.8, "self_fraction": 0.4} | changes
    return refine(PAIRS[:pairs], TOKENS, self_max_tokens=64, **numbers)


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


def plain(unet: nn.Module, draws: Draws, injection: Injection, step: int) -> Tensor:
    before = dict(unet.attn_processors)  # type: ignore[arg-type]
    unet.set_attn_processor(PlainAttention(len(draws.text) // 2, draws.guided, plain_refine(injection, step)))  # type: ignore[operator]
    try:
        return draws.predict(unet)
    finally:
        unet.set_attn_processor(before)  # type: ignore[operator]


@pytest.mark.parametrize("pairs", [1, 2, 3, 4])
@pytest.mark.parametrize("step", [0, 5, 9], ids=["both injections", "cross only", "neither"])
def test_fused_injection_equals_the_plain_one(unet: nn.Module, pairs: int, step: int) -> None:
    draws, injection = Draws(pairs), plan(pairs)
    assert relative(fused(unet, draws, injection, step), plain(unet, draws, injection, step)) <= 1e-5


@pytest.mark.parametrize("step", [0, 5, 9])
@pytest.mark.parametrize(("guided", "zero"), [(False, True), (True, False)], ids=["unguided", "encoded empty prompt"])
def test_it_does_so_without_guidance_and_with_an_encoded_empty_prompt(
    unet: nn.Module, guided: bool, zero: bool, step: int
) -> None:
    draws, injection = Draws(3, guided, zero), plan(3)
    assert relative(fused(unet, draws, injection, step), plain(unet, draws, injection, step)) <= 1e-5


def test_only_targets_under_guidance_change(unet: nn.Module) -> None:
    draws = Draws(2)
    injected, free = fused(unet, draws, plan(2), 0), fused(unet, draws, None, 0)
    torch.testing.assert_close(injected[:6], free[:6], rtol=1e-5, atol=1e-5)
    assert relative(injected[6:], free[6:]) > 1e-2


@pytest.mark.parametrize("wrong", ["mapper", "kept", "values", "halves"])
def test_the_comparison_sees_a_wrong_kernel(unet: nn.Module, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    draws, right = Draws(2), plan(2)
    injection = right
    if wrong == "mapper":
        injection = Injection(right.carried.roll(1, dims=1), right.kept, 0.8, 0.4, 64)
    elif wrong == "kept":
        injection = Injection(right.carried, torch.ones_like(right.kept), 0.8, 0.4, 64)
    else:
        swap = {"values": -1, "halves": 0}[wrong]
        monkeypatch.setattr(module, "attention", lambda q, k, v: attention(q, k, v.roll(v.shape[swap] // 2, swap)))
    assert relative(fused(unet, draws, injection, 0), plain(unet, draws, right, 0)) > 1e-3


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
    mapper, alpha = refinement_mapper(*PAIRS[0], 8)
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
