"""Which parts of which role are compiled.

It owns that choice; how compiling goes and how it fails is `kernels.compile`'s.
"""

from collections.abc import Callable, Mapping
from typing import Any

from imgdiffd.kernels.compile import compile_blocks
from imgdiffd.pipeline import Role

_FIXED_SHAPES = frozenset({Role.PAINTER, Role.ERASER})  # the others' rows or lengths differ from call to call


def compile_models(models: Mapping[Role, Any], note: Callable[[str], None]) -> None:
    """Compiles the `repeated_blocks` of every model that has any, at their first calls.

    What fails, now or later, runs as it did before, and `note` hears of it once.
    """
    done: set[int] = set()  # an eraser may share its checkpoint with the painter
    for role, model in models.items():
        blocks = model.repeated_blocks() if hasattr(model, "repeated_blocks") else []
        blocks = [block for block in blocks if id(block) not in done]
        done.update(map(id, blocks))
        if blocks:
            compile_blocks(f"the {role}", blocks, note, fixed_shapes=role in _FIXED_SHAPES)
