"""Regional torch.compile that may fail: then the blocks run as they are, and it is said once.

It owns which parts of a model repeat, how they are compiled and the way back; it does not know what they compute.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._dynamo import callback as dynamo_callback

from imgdiffd.errors import first_line

_VARIANTS = 64  # of one piece of code: an SDXL UNet alone has a dozen shapes of resnet, dynamo's own limit is 8


def attending_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that `model` repeats: the members of every list of modules that are of one class and attend."""
    return [
        layer
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList) and len({type(layer) for layer in stack}) == 1 and _attentions(stack[0])
        for layer in stack
    ]


def parts_beside_attention(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """What `layers` hold beside their attention, but for torch's own modules, which are one kernel each already.

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
) -> None:
    """Compiles each block's forward at its first call; one kernel serves all blocks of the same class and shape.

    Attention inside a block stays as it is: it is fused already, and what it attends to changes from call to call, the
    injected steps of a painter among it. With `fixed_shapes` each shape is compiled for itself; without, a side that
    was seen to change is compiled once for all its lengths. A block must be pure. Where its own forward works and the
    compiled one does not, all of `blocks` go back to their own, for good, and `say` gets the reason. Errors of the
    computation itself, torch's OutOfMemoryError among them, pass through.
    """
    chosen = list(blocks)
    attentions = [part for block in chosen for part in _attentions(block)]
    eager = [(module, module.forward) for module in (*attentions, *chosen)]
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _VARIANTS)
    config.fail_on_recompile_limit_hit = True  # instead of a line in a log and blocks that are slow for ever

    def give_up(error: Exception) -> None:
        for module, forward in eager:
            module.forward = forward
        say(f"{what} runs uncompiled: {first_line(getattr(error, 'inner_exception', error))}")

    compiled = {
        kind: torch.compile(_own_forward(kind), dynamic=False if fixed_shapes else None, backend=backend)
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
        except Exception as error:  # kernels that were built may still lack a compiler or a driver when they first run
            result = forward(*args, **kwargs)  # where the computation is to blame, this raises as well
            give_up(error)
            return result

    return call


@contextmanager
def compilations_told(tell: Callable[[int], None]) -> Iterator[None]:
    """Calls `tell` at the beginning of each compilation inside, with how many there were, this one included."""
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
