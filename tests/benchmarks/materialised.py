"""Prompt-to-Prompt as its reference does it: every attention map is stored, edited and then applied to the values."""

from typing import Any

from torch import Tensor

from imgdiffd.kernels.edits import Injection, injected_steps


class StoredMaps:
    """An attention processor for all layers of a UNet; the batch is laid out as in `kernels.prompt_to_prompt`."""

    def __init__(self, injection: Injection, pairs: int, step: int, steps: int, like: Tensor) -> None:
        """`like` has the device and the precision of the maps."""
        carried, kept = injection.shares(injection.open_spans(step, steps))
        self._carried = carried.to(like)[:, None]
        self._kept = None if kept is None else kept.to(like)[:, None, None]
        self._unguided = 2 * pairs
        self._self_tokens = injection.self_max_tokens if step < injected_steps(injection.self_fraction, steps) else 0

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            project(each).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project, each in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        maps = (q @ k.mT * attn.scale).softmax(-1)
        source, target = maps[self._unguided :].chunk(2)
        if encoder_hidden_states is not None:
            carried = source @ self._carried
            target.copy_(carried if self._kept is None else carried + target * self._kept)
        elif maps.shape[-1] <= self._self_tokens:
            target.copy_(source)
        out: Tensor = attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2))
        return out
