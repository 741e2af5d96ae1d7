"""Prompt-to-Prompt the plain way, with every attention map stored: what the fused kernel is compared with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from imgdiffd.kernels.edits import Injection, edit_pairs, refinement_mapper
from tests.tiny.sdxl import TEXT_WIDTH

TOKENS = 12
STEPS = 10
BEGIN, END = 90, 91
PAIRS = [  # a token a letter: one word replaced, longer, shorter, all but the ends changed
    ("a b c d", "a E c d"),
    ("a b c d", "a fg b c d hb"),
    ("a bb c a d e", "a b c"),
    ("a b", "c d e f g h i j"),
]
WORDS = [("a b c d", "a E c d"), ("a bb c d", "a b c fgh"), ("ab c d", "abc c d"), ("a b", "a b")]  # one for one


def tokenize(caption: str) -> list[int]:
    return [BEGIN, *(ord(letter) % 90 for letter in caption if letter != " "), END]


IDS = [(tokenize(source), tokenize(target)) for source, target in PAIRS]


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


def word_tokens(caption: str, wanted: str) -> list[int]:
    """Where the tokens of the word `wanted` stand: a letter a token, behind the begin mark."""
    found: list[int] = []
    at = 1
    for word in caption.split():
        found += range(at, at + len(word)) if word.lower() == wanted.lower() else ()
        at += len(word)
    return found


def plain_replace(source: str, target: str) -> Tensor:
    """The word-for-word matrix, walked as in the reference, here over every word."""
    matrix, at, to = torch.zeros(TOKENS, TOKENS), 1, 1
    matrix[0, 0] = 1
    for one, other in zip(source.split(), target.split(), strict=True):
        for i in range(len(one)):
            for j in range(len(other)):
                matrix[at + i, to + j] = 1 / len(other) if len(one) != len(other) else float(i == j)
        at, to = at + len(one), to + len(other)
    matrix[at, to] = 1
    for place in range(to + 1, TOKENS):
        matrix[place, place] = 1
    return matrix


def in_span(step: int, span: tuple[float, float]) -> bool:
    return int(span[0] * STEPS + 1e-6) <= step < int(span[1] * STEPS + 1e-6)


def plain_edit(options: dict[str, Any], step: int) -> Callable[[Tensor, Tensor, bool], Tensor]:
    """Written on maps in the reference's order: replace or refine, then reweight, then the words' steps."""
    pairs, edit = options["pairs"], options["edit"]

    def edited(pair: tuple[str, str], base: Tensor, own: Tensor) -> Tensor:
        if edit == "refine":
            mapper, alpha = refinement_mapper(tokenize(pair[0]), tokenize(pair[1]), TOKENS)
            weight = torch.tensor(alpha)
            out = base[..., mapper] * weight + own * (1 - weight)
        elif edit == "replace":
            out = torch.einsum("hpw,wn->hpn", base, plain_replace(*pair))
        else:
            out = base
        equalizer = torch.ones(TOKENS)
        for word, factor in options["reweight"].items():
            equalizer[word_tokens(pair[1], word)] = factor
        alpha_words = torch.full((TOKENS,), float(in_span(step, (0, options["cross_fraction"]))))
        for word, span in options["word_spans"].items():
            alpha_words[word_tokens(pair[1], word)] = float(in_span(step, span))
        return out * equalizer * alpha_words + (1 - alpha_words) * own

    def change(source: Tensor, target: Tensor, cross: bool) -> Tensor:
        if cross:
            return torch.stack([edited(*each) for each in zip(pairs, source, target, strict=True)])
        inside = step < options["self_fraction"] * STEPS and target.shape[-1] <= options["self_max_tokens"]
        return source if inside else target

    return change


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


def options(pairs: int, captions: list[tuple[str, str]] | None = None, **changes: Any) -> dict[str, Any]:
    chosen = captions or (WORDS if changes.get("edit") == "replace" else PAIRS)[:pairs]
    numbers = {"edit": "refine", "cross_fraction": 0.8, "self_fraction": 0.4, "self_max_tokens": 64}
    return numbers | {"pairs": chosen, "reweight": {}, "word_spans": {}} | changes


def plan_of(options: dict[str, Any]) -> Injection:
    return edit_pairs(tokenize=tokenize, tokens=TOKENS, **options)


def plan(pairs: int, **changes: Any) -> Injection:
    return plan_of(options(pairs, **changes))
