"""Choosing the next token as the profile says, whatever the checkpoint's own generation configuration suggests."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

# What says nothing of how tokens are chosen, or what the profile always decides.
_NOT_SUGGESTED = frozenset({"do_sample", "max_length", "max_new_tokens", "temperature", "top_p", "use_cache"})


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end an answer: those in the model's generation configuration and the tokenizer's own."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in (*several, tokenizer.eos_token_id) if token is not None)


def suggestions(model: Any) -> dict[str, object]:
    """How else the checkpoint's generation configuration wants tokens to be chosen: penalties, top-k and the like.

    None of it is used; temperature and top-p are left out, since a profile always has them.
    """
    given: dict[str, object] = model.generation_config.to_diff_dict()
    return {
        key: value
        for key, value in sorted(given.items())
        if isinstance(value, int | float)
        and key not in _NOT_SUGGESTED
        and not key.endswith("_token_id")
        and not key.startswith(("output_", "return_", "_"))
    }


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Without the checkpoint's chat settings: `generate` applies their penalties and limits to greedy answers too."""
    kept, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept


class Said:
    """The tokens of each row so far, prompt and answer, which a repetition penalty other than 1 makes less likely."""

    def __init__(self, prompts: Sequence[Sequence[int]], penalty: float, device: torch.device) -> None:
        self._penalty = penalty
        self._rows: list[Tensor] = [torch.tensor(prompt, device=device) for prompt in prompts] if penalty != 1 else []

    def penalised(self, logits: Tensor) -> Tensor:
        """`logits` [rows, vocabulary] with those of said tokens divided by the penalty, or times it below 0."""
        if not self._rows:
            return logits
        logits = logits.clone()
        for row, tokens in zip(logits, self._rows, strict=True):
            before = row[tokens]
            row[tokens] = torch.where(before < 0, before * self._penalty, before / self._penalty)
        return logits

    def add(self, chosen: Tensor) -> None:
        """Each row's newest token."""
        self._rows = [torch.cat((row, token[None])) for row, token in zip(self._rows, chosen, strict=False)]


def uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """Random numbers in [0, 1), float64 [rows, steps], each row from a CPU generator of its own seed."""
    rows = [
        torch.rand(steps, dtype=torch.float64, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds
    ]
    return torch.stack(rows)


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float, top_k: int = 0) -> Tensor:
    """A token for each row of `logits` [rows, vocabulary]: the one at `uniform` [rows] of the cumulative probability.

    Only the likeliest tokens that together reach `top_p` take part, at least one, among the `top_k` likeliest unless
    that is 0. Temperature 0 takes the likeliest. Sums are in float64, so that rounding does not choose near a boundary.
    """
    if temperature == 0:
        return logits.float().argmax(-1)
    ranked, order = torch.sort((logits.double() / temperature).softmax(-1), dim=-1, descending=True, stable=True)
    if 0 < top_k < ranked.shape[-1]:
        ranked[:, top_k:] = 0.0
        ranked /= ranked.sum(-1, keepdim=True)
    before = ranked.cumsum(-1) - ranked
    ranked = ranked.masked_fill(before >= top_p, 0.0)
    reached = ranked.cumsum(-1)
    place = torch.searchsorted(reached, uniform[:, None] * reached[:, -1:], right=True)
    last = (ranked > 0).sum(-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(place, last))[:, 0]
