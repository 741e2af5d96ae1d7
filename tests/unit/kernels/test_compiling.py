"""Compiling: as many kernels as shapes and never one more, the same results, and a way back that is said once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.kernels import compile as compiling
from imgdiffd.kernels.compile import attending_layers, compilations_told, compile_blocks, parts_beside_attention
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Generate
from imgdiffd.models.loading import Models, load_models
from imgdiffd.models.painter import Painter, PairPrompt
from imgdiffd.pipeline import OPTIONAL_ROLES, Role
from tests.tiny.sdxl import IMAGE_PX

CPU = torch.device("cpu")
PAIR = PairPrompt("a red ball", "a blue ball", 1)


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    """No kernel of another test counts."""
    config: Any = torch._dynamo.config
    torch._dynamo.reset()
    counters.clear()
    with config.patch(recompile_limit=2, fail_on_recompile_limit_hit=False):
        yield
    torch._dynamo.reset()


def loaded(path: Path, *roles: Role) -> Models:
    return load_models(load_bundle(path), roles, CPU, lambda _: None, compile=False)


def kernels_of(work: Callable[[], object]) -> int:
    """How many graphs were compiled while `work` ran."""
    before = counters["stats"]["unique_graphs"]
    work()
    return counters["stats"]["unique_graphs"] - before


def refuse(note: str) -> None:
    raise AssertionError(note)


def generate(**changes: object) -> Generate:
    """Three steps: one that injects both ways, one that injects the captions alone, one free."""
    base: dict[str, object] = {"picture_px": IMAGE_PX, "steps": 3, "cross_injection": 0.67, "self_injection": 0.34}
    return load_profile("default").generate.model_copy(update=base | changes)


def shapes_of_blocks(painter: Painter, work: Callable[[], object]) -> set[tuple[str, *tuple[object, ...]]]:
    """Class, weights' and inputs' shapes and strides of every call of a repeated block during `work`."""
    seen: set[tuple[str, *tuple[object, ...]]] = set()

    def note(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        factor = type(getattr(block, "output_scale_factor", None))  # diffusers gives some blocks an int
        seen.add(
            (
                type(block).__name__,
                given.shape,
                given.stride(),
                factor,
                *(weight.shape for weight in block.parameters()),
            )
        )

    hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in painter.repeated_blocks()]
    work()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.long
def test_a_painter_is_compiled_once_per_class_and_shape(tiny_bundle: Path) -> None:
    painter = loaded(tiny_bundle, Role.PAINTER).need_painter
    shapes = shapes_of_blocks(painter, lambda: painter.paint_pairs([PAIR], generate()))
    # Attention stays out: it cuts a UNet's transformer block in three pieces and an encoder's layer in two.
    pieces = {"BasicTransformerBlock": 3, "CLIPEncoderLayer": 2, "ResnetBlock2D": 1}
    expected = sum(pieces[kind] for kind, *_ in shapes)
    assert {kind: [name for name, *_ in shapes].count(kind) for kind in pieces} == {
        "BasicTransformerBlock": 2,  # at two resolutions, whatever is injected there
        "CLIPEncoderLayer": 1,
        "ResnetBlock2D": 12,  # seven of the UNet, five of the decoder
    }
    compile_blocks("the painter", painter.repeated_blocks(), refuse, fixed_shapes=True, backend="eager")
    two = [PAIR, PairPrompt("a cat on grass", "a dog on the grass in here", 2)]
    assert kernels_of(lambda: painter.paint_pairs(two, generate())) == expected
    assert kernels_of(lambda: painter.paint_pairs(two * 2, generate(edit="none"))) == 0
    assert kernels_of(lambda: painter.paint_pairs(two, generate(steps=5, cross_injection=1.0))) == 0


@pytest.mark.long
def test_a_painter_paints_the_same_through_compiled_graphs(tiny_bundle: Path) -> None:
    painter = loaded(tiny_bundle, Role.PAINTER).need_painter
    wanted = latents_of(painter)
    compile_blocks("the painter", painter.repeated_blocks(), refuse, fixed_shapes=True, backend="aot_eager")
    assert torch.allclose(latents_of(painter), wanted, atol=1e-4)


def latents_of(painter: Painter) -> Tensor:
    """What the painter would decode."""
    found: list[Tensor] = []
    decode = painter.sdxl.decode
    painter.sdxl.decode = lambda latents: found.append(latents) or decode(latents)  # type: ignore[method-assign,func-returns-value]
    painter.paint_pairs([PAIR], generate())
    painter.sdxl.decode = decode  # type: ignore[method-assign]
    return torch.stack(found)


IMAGE = torch.arange(3 * 32 * 32).remainder(251).to(torch.uint8).view(3, 32, 32)
BOXES = [(0, 0, 8 + place, 16) for place in range(8)]
TEXTS = ["a dog", "cat", "a red ball on the grass", "a cat and a dog in sea", "a a", "ball ball ball", "sea", "on"]


@pytest.mark.long
def test_crops_of_any_number_share_kernels_after_three_numbers(tiny_bundle: Path) -> None:
    models = loaded(tiny_bundle, Role.CLIP, Role.BLIP)
    clip, blip = models.need_clip, models.need_blip
    compile_blocks("the clip", clip.repeated_blocks(), refuse, fixed_shapes=False, backend="eager")
    compile_blocks("the blip", blip.repeated_blocks(), refuse, fixed_shapes=False, backend="eager")

    def look(*numbers: int) -> None:
        for number in numbers:
            clip.embed_crops(IMAGE, BOXES[:number])
            blip.score(IMAGE, BOXES[:number], TEXTS[:number], "blip_itc_cosine")
            blip.score(IMAGE, BOXES[:number], TEXTS[:number], "blip_itm_probability")

    clip.embed_texts(TEXTS[:1])
    assert kernels_of(lambda: look(1, 2, 3)) > 0
    assert kernels_of(lambda: look(5, 8, 1, 2)) == 0
    assert kernels_of(lambda: clip.embed_texts(TEXTS)) == 0


@pytest.mark.long
def test_captions_of_any_length_share_kernels_after_two_lengths(tiny_bundle: Path) -> None:
    rewriter = loaded(tiny_bundle, Role.REWRITER).need_rewriter
    rewrite = load_profile("default").rewrite.model_copy(update={"prompt": "{caption}", "max_new_tokens": 4})
    captions = ["a dog " * words for words in (1, 20, 40, 60)]
    wanted = rewriter.rewrite(captions, [1, 2, 3, 4], rewrite)
    compile_blocks("the rewriter", rewriter.repeated_blocks(), refuse, fixed_shapes=False, backend="eager")
    assert kernels_of(lambda: rewriter.rewrite(captions[:2], [1, 2], rewrite)) > 0
    assert kernels_of(lambda: rewriter.rewrite(captions[2:], [3, 4], rewrite)) == 0
    assert rewriter.rewrite(captions, [1, 2, 3, 4], rewrite) == wanted


def test_every_role_that_is_compiled_names_blocks_that_repeat(tiny_bundle: Path) -> None:
    models = loaded(tiny_bundle, *(role for role in Role if role not in OPTIONAL_ROLES))
    for model in (models.need_painter, models.need_clip, models.need_blip, models.need_rewriter):
        kinds = [type(block) for block in model.repeated_blocks()]
        assert 0 < len(set(kinds)) < len(kinds)


class Attention(nn.Module):
    """Writes into a cache: run twice, it would be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, states: Tensor) -> Tensor:
        self.calls += 1
        return states * 2


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm, self.mlp = Attention(), nn.LayerNorm(4), Doubled()
        self.requires_grad_(False)

    def forward(self, states: Tensor) -> Tensor:
        return states + self.mlp(self.norm(self.attention(states)))  # type: ignore[no-any-return]


class Doubled(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states.sin() + states


def layers() -> list[Layer]:
    return [Layer() for _ in range(3)]


@pytest.mark.parametrize(("fixed", "kernels"), [(True, 4), (False, 2)])
def test_fixed_shapes_have_a_kernel_each_and_others_share_one(fixed: bool, kernels: int) -> None:
    block = Doubled()
    compile_blocks("the block", [block], refuse, fixed_shapes=fixed, backend="eager")
    assert kernels_of(lambda: [block(torch.ones(length)) for length in (2, 3, 4, 5, 3)]) == kernels


def test_attending_layers_and_their_other_parts_are_found() -> None:
    stack = layers()
    plain, empty = nn.ModuleList([nn.Linear(1, 1)]), nn.ModuleList()
    model = nn.ModuleDict({"stack": nn.ModuleList(stack), "plain": plain, "empty": empty})
    assert attending_layers(model) == stack
    assert parts_beside_attention(stack) == [layer.mlp for layer in stack]


def test_attention_is_not_traced_and_layers_share_kernels() -> None:
    stack = layers()
    traced: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        traced.append(graph.code)
        return graph.forward

    compile_blocks("the stack", stack, refuse, fixed_shapes=True, backend=backend)
    states = torch.ones(2, 4)
    for layer in stack:
        states = layer(states)
    assert [layer.attention.calls for layer in stack] == [1, 1, 1]
    assert len(traced) == 1
    assert "* 2" not in traced[0]


def test_a_failing_backend_leaves_every_block_as_it_was() -> None:
    stack, told = layers(), list[str]()
    wanted = [layer(torch.ones(2, 4)) for layer in stack]

    def backend(*_: object) -> Any:
        raise RuntimeError("no compiler\nin this house")

    compile_blocks("the stack", [layer.mlp for layer in stack], told.append, fixed_shapes=True, backend=backend)
    for _ in range(2):
        assert all(torch.equal(layer(torch.ones(2, 4)), was) for layer, was in zip(stack, wanted, strict=True))
    assert [each.splitlines()[0] for each in told] == ["the stack runs uncompiled: RuntimeError: no compiler"]


def test_more_shapes_than_allowed_is_a_failure_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_VARIANTS", 2)
    block, told = Doubled(), list[str]()
    compile_blocks("the block", [block], told.append, fixed_shapes=True, backend="eager")
    for length in range(2, 8):
        assert torch.equal(block(torch.ones(length)), torch.ones(length).sin() + 1)
    assert len(told) == 1
    assert told[0].startswith("the block runs uncompiled: FailOnRecompileLimitHit")


def test_out_of_memory_passes_through_and_changes_nothing() -> None:
    block, told = Doubled(), list[str]()

    def backend(*_: object) -> Callable[..., Any]:
        def full(*_: object) -> Any:
            raise torch.OutOfMemoryError("full")

        return full

    compile_blocks("the block", [block], told.append, fixed_shapes=True, backend=backend)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            block(torch.ones(2))
    assert told == []


def test_a_kernel_that_fails_at_its_first_run_failed_to_compile() -> None:
    stack, told = layers(), list[str]()
    wanted = [layer(torch.ones(2, 4)) for layer in stack]

    def backend(*_: object) -> Callable[..., Any]:
        def launched(*_: object) -> Any:
            raise RuntimeError("Failed to find C compiler")

        return launched

    compile_blocks("the stack", [layer.mlp for layer in stack], told.append, fixed_shapes=True, backend=backend)
    for _ in range(2):
        assert all(torch.equal(layer(torch.ones(2, 4)), was) for layer, was in zip(stack, wanted, strict=True))
    assert [each.splitlines()[0] for each in told] == [
        "the stack runs uncompiled: RuntimeError: Failed to find C compiler"
    ]


def test_an_error_of_the_computation_leaves_the_block_compiled() -> None:
    block, told = Doubled(), list[str]()
    compile_blocks("the block", [block], told.append, fixed_shapes=True, backend="eager")
    compiled = block.forward
    with pytest.raises(AttributeError):
        block("no tensor")
    assert told == []
    assert block.forward is compiled


def test_compilations_are_told_as_they_begin() -> None:
    block, told = Doubled(), list[int]()
    compile_blocks("the block", [block], refuse, fixed_shapes=True, backend="eager")
    with compilations_told(told.append):
        block(torch.ones(2))
        block(torch.ones(3))
        block(torch.ones(3))
    block(torch.ones(4))
    assert told == [1, 2]
