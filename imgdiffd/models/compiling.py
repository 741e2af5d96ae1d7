"""Regional torch.compile that may fail: then the blocks run as they are, and it is said once.

It owns what is compiled and the way back; it does not know what the blocks compute.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


def compile_blocks(what: str, blocks: Iterable[nn.Module], say: Callable[[str], None]) -> None:
    """Compiles each block's forward at its first call; one kernel serves all blocks of the same class and shape.

    A block whose compilation fails, and with it all of `blocks`, goes back to its own forward; `say` gets the reason.
    Errors of the computation itself, torch's OutOfMemoryError among them, pass through.
    """
    chosen = list(blocks)
    eager = [block.forward for block in chosen]

    def give_up(error: Exception) -> None:
        for block, forward in zip(chosen, eager, strict=True):
            block.forward = forward
        reason = str(error).strip().splitlines()
        say(f"{what} runs uncompiled: {type(error).__name__}: {reason[0] if reason else 'no reason given'}")

    for block, forward in zip(chosen, eager, strict=True):
        block.forward = _guarded(forward, give_up)


def _guarded(forward: Callable[..., Any], give_up: Callable[[Exception], None]) -> Callable[..., Any]:
    compiled = torch.compile(forward, dynamic=None)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            give_up(error)
            return forward(*args, **kwargs)

    return call
