"""Choosing the next token: the ends of answers, each row's own random numbers, temperature and top-p."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end an answer: those in the model's generation configuration and the tokenizer's own."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*several, tokenizer.eos_token_id) if token is not None)


def uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """Random numbers in [0, 1), float64 [rows, steps], each row from a CPU generator of its own seed."""
    rows = [
        torch.rand(steps, dtype=torch.float64, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows)


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """A token for each row of `logits` [rows, vocabulary]: the one at `uniform` [rows] of the cumulative probability.

    Only the likeliest tokens that together reach `top_p` take part, at least one. Temperature 0 takes the likeliest.
    Sums are in float64, so that rounding does not choose near a boundary.
    """
    if temperature == 0:
        return logits.float().argmax(-1)
    ranked, order = torch.sort((logits.double() / temperature).softmax(-1), dim=-1, descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked
    ranked = ranked.masked_fill(before >= top_p, 0.0)
    reached = ranked.cumsum(-1)
    place = torch.searchsorted(reached, uniform[:, None] * reached[:, -1:], right=True)
    last = (ranked > 0).sum(-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(place, last))[:, 0]
