"""torch.compile for a model's repeated blocks; where compiling fails they run uncompiled, which is reported once."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch._dynamo import callback as dynamo_callback

_VARIANTS = 128  # of one piece of code: an SDXL's residual blocks have 28 at each size of images, dynamo's limit is 8
# The back end's options for products whose kernel is chosen by timing, 1×1 convolutions among them.
TUNED: Mapping[str, bool] = MappingProxyType({"max_autotune_gemm": True, "conv_1x1_as_mm": True})


def attending_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that `model` repeats: the members of each module list whose members are of one class and attend."""
    return [
        layer
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList) and len({type(layer) for layer in stack}) == 1 and _attentions(stack[0])
        for layer in stack
    ]


def parts_beside_attention(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """The parts of `layers` except their attention and torch's own modules, which are one kernel each already.

    For layers whose attention writes into a cache: a block whose compilation fails is run again from its beginning, so
    it must not have written anything.
    """
    return [
        part
        for layer in layers
        for part in layer.children()
        if not _attends(part) and not type(part).__module__.startswith("torch.nn.")
    ]


def compile_blocks(
    what: str,
    blocks: Iterable[nn.Module],
    say: Callable[[str], None],
    *,
    fixed_shapes: bool,
    backend: str | Callable[..., Any] = "inductor",
    options: Mapping[str, bool] | None = None,
) -> None:
    """Compiles each block's forward at its first call; one kernel serves all blocks of the same class and shape.

    Attention inside a block is left alone: it is fused already, and what it attends to changes from call to call, as in
    the injected steps of a painter. With `fixed_shapes` each shape is compiled separately; without, a dimension that
    was seen to change is compiled once for all its lengths. `options` are the back end's. A block must be pure. Where a
    block's own forward works and the compiled one does not, all of `blocks` return to their own for good, and `say`
    gets the reason. Errors of the computation itself, including torch's OutOfMemoryError, pass through.
    """
    chosen = list(blocks)
    attentions = [part for block in chosen for part in _attentions(block)]
    eager = [(module, module.forward) for module in (*attentions, *chosen)]
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _VARIANTS)
    config.fail_on_recompile_limit_hit = True  # instead of a line in a log and blocks that stay slow

    def give_up(error: Exception) -> None:
        for module, forward in eager:
            module.forward = forward
        cause = getattr(error, "inner_exception", error)
        say(f"{what} runs uncompiled: {type(cause).__name__}: {cause}")

    compiled = {
        kind: torch.compile(
            _own_forward(kind),
            dynamic=False if fixed_shapes else None,
            backend=backend,
            options=None if options is None else dict(options),
        )
        for kind in {type(block) for block in chosen}
    }
    disable: Any = torch.compiler.disable  # torch declares no types for it
    for module in attentions:
        module.forward = disable(module.forward)
    for block in chosen:
        block.forward = _guarded(functools.partial(compiled[type(block)], block), block.forward, give_up)


def _attends(module: nn.Module) -> bool:
    return "attention" in type(module).__name__.lower()


def _attentions(block: nn.Module) -> list[nn.Module]:
    return [part for part in block.children() if _attends(part)]


def _own_forward(kind: type[nn.Module]) -> Callable[..., Any]:
    """The class's forward, without the wrapper that transformers puts around it for training."""
    forward: Any = kind.forward
    code = getattr(forward, "__code__", None)
    own: Callable[..., Any] = (
        forward.__wrapped__ if code is not None and code.co_name == "forward_with_checkpointing" else forward
    )
    return own


def _guarded(
    compiled: Callable[..., Any], forward: Callable[..., Any], give_up: Callable[[Exception], None]
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any type: a compiler or a driver may turn out to be missing only now
            result = forward(*args, **kwargs)  # raises too if the computation itself is to blame
            give_up(error)
            return result

    return call


@contextmanager
def compilations_told(tell: Callable[[int], None]) -> Iterator[None]:
    """Calls `tell` as each compilation inside the block begins, with its number, counted from 1."""
    count = 0

    def began(_: object) -> None:
        nonlocal count
        count += 1
        tell(count)

    handler = dynamo_callback.callback_handler
    handler.register_start_callback(began)
    try:
        yield
    finally:
        handler.remove_start_callback(began)
