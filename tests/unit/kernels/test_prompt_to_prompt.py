"""The laws of fused Prompt-to-Prompt, against a plain implementation that stores every attention map."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from imgdiffd.kernels import prompt_to_prompt as module
from imgdiffd.kernels.attention import attention
from imgdiffd.kernels.edits import Injection
from imgdiffd.kernels.prompt_to_prompt import PairController
from tests.benchmarks.measuring import flops_of
from tests.reference.plain_injection import STEPS, TOKENS, Draws, PlainAttention, options, plain_edit, plan, plan_of
from tests.tiny.sdxl import tiny_unet


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


MANY = pytest.param(4, marks=pytest.mark.long)


@pytest.mark.parametrize("pairs", [1, 2, MANY])
@pytest.mark.parametrize("step", [0, 5, 9], ids=["both injections", "cross only", "neither"])
def test_fused_injection_equals_the_plain_one(unet: nn.Module, pairs: int, step: int) -> None:
    draws, given = Draws(pairs), options(pairs)
    assert relative(fused(unet, draws, plan_of(given), step), plain(unet, draws, given, step)) <= 1e-5


WEIGHTS = {"c": 3.0, "a": -0.5, "fgh": 0.0, "nowhere": 9.0}
SPANS = {"c": (0.2, 0.5), "d": (0.0, 1.0), "E": (0.0, 0.0), "nowhere": (0.3, 0.6)}


@pytest.mark.parametrize("pairs", [2, MANY])
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
def test_every_edit_works_without_guidance_or_zeroed_prompt(
    unet: nn.Module, guided: bool, zero: bool, edit: str
) -> None:
    draws, given = Draws(3, guided, zero), options(3, edit=edit, reweight=WEIGHTS, word_spans=SPANS)
    assert relative(fused(unet, draws, plan_of(given), 2), plain(unet, draws, given, 2)) <= 1e-5


@pytest.mark.parametrize("self_max_tokens", [0, 64, 256])
def test_self_injection_reaches_only_its_resolutions(unet: nn.Module, self_max_tokens: int) -> None:
    draws, given = Draws(2), options(2, self_max_tokens=self_max_tokens)
    wanted = plain(unet, draws, given, 0)
    assert relative(fused(unet, draws, plan_of(given), 0), wanted) <= 1e-5
    for other in {0, 64, 256} - {self_max_tokens}:
        assert relative(fused(unet, draws, plan(2, self_max_tokens=other), 0), wanted) > 1e-4


@pytest.mark.parametrize("step", [0, 5, 9])
@pytest.mark.parametrize(("guided", "zero"), [(False, True), (True, False)], ids=["unguided", "encoded empty prompt"])
def test_injection_works_without_guidance_or_zeroed_prompt(
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


@pytest.mark.parametrize(("edit", "rows"), [("refine", 6), ("replace", 4), ("none", 4)])
def test_targets_that_keep_nothing_are_attended_to_once(
    unet: nn.Module, monkeypatch: pytest.MonkeyPatch, edit: str, rows: int
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "attention", lambda q, k, v: seen.append((k.shape[2], len(q))) or attention(q, k, v))  # type: ignore[func-returns-value]
    layers = sum(getattr(each, "is_cross_attention", False) for each in unet.modules())
    fused(unet, Draws(2), plan(2, edit=edit), 0)
    assert sum(count for tokens, count in seen if tokens == TOKENS) == rows * layers


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


def test_without_injection_the_unet_answers_as_the_stock_one(unet: nn.Module) -> None:
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


def test_text_is_projected_once_a_pass_never_for_zero_prompts(unet: nn.Module) -> None:
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


def test_injected_layers_skip_the_targets_queries_and_keys(unet: nn.Module) -> None:
    draws, injection, pairs = Draws(2), plan(2), 2
    layers: list[Any] = [each for each in unet.modules() if getattr(each, "is_cross_attention", True) is False]
    tokens = {}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: tokens.update({layer: inputs[0].shape}))
        for layer in layers
    ]
    with_both, with_cross = (flops_of(lambda: fused(unet, draws, injection, step)) for step in (0, 5))  # noqa: B023
    for hook in hooks:
        hook.remove()
    injected = [shape for shape in tokens.values() if shape[1] <= injection.self_max_tokens]
    assert with_cross - with_both == sum(2 * pairs * count * channels * 2 * channels for _, count, channels in injected)
    assert len(injected) > 1


def test_fusing_projections_takes_no_memory_of_its_own() -> None:
    unet = tiny_unet()
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    control = PairController(unet)
    layers: list[Any] = [each for each in unet.modules() if getattr(each, "is_cross_attention", True) is False]
    for layer in layers:
        parts = [layer.to_q.weight, layer.to_k.weight, layer.to_v.weight]
        assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
        assert parts[0].untyped_storage().nbytes() == sum(part.nbytes for part in parts)
    control.remove()
    assert all(torch.equal(weight, before[name]) for name, weight in unet.named_parameters())


def test_a_layer_unlike_sdxls_is_refused_by_name() -> None:
    other = tiny_unet(down_block_types=("AttnDownBlock2D", "CrossAttnDownBlock2D"))
    with pytest.raises(ValueError, match=r"down_blocks\.0\.attentions\.0 has group_norm"):
        PairController(other)


def test_a_layer_with_biased_projections_is_refused_by_name() -> None:
    other = tiny_unet()
    other.mid_block.attentions[0].transformer_blocks[0].attn1.to_k.bias = nn.Parameter(torch.zeros(64))
    with pytest.raises(ValueError, match=r"mid_block.*attn1 has a bias in to_k"):
        PairController(other)
