"""The edits of Prompt-to-Prompt (section 3.2) as data: which token's value rides on whose attention, in which steps.

The paper's words, or its code's: "refine" is adding a phrase (AttentionRefine), "replace" a word swap
(AttentionReplace), `reweight` its attention re-weighting (AttentionReweight with an equalizer); `cross_fraction` with
`word_spans` is cross_replace_steps, `self_fraction` self_replace_steps; the mappers have their own name. LocalBlend is
left out, for the reason given in `prompt_to_prompt`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tokenize = Callable[[str], Sequence[int]]  # a caption's token ids, with one begin and one end mark around them
Span = tuple[float, float]  # (start, end) as fractions of the steps, the end excluded


def refinement_mapper(source: Sequence[int], target: Sequence[int], tokens: int) -> tuple[list[int], list[float]]:
    """The mapper and alphas of AttentionRefine: each target position's source position, and 1 if aligned to it, else 0.

    Both lists have `tokens` entries. Needleman–Wunsch over token ids (gap 0, match 1, mismatch -1); of equally good
    alignments it takes the one that leaves target tokens unaligned as late as possible, as the reference's traceback
    does. Padding maps to its own position. Raises ValueError where a sequence is longer than `tokens`.
    """
    if max(len(source), len(target)) > tokens:
        raise ValueError(f"captions of {len(source)} and {len(target)} tokens do not fit into {tokens}")
    score = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, source_token in enumerate(source, 1):
        for j, target_token in enumerate(target, 1):
            match = score[i - 1][j - 1] + (1 if source_token == target_token else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], match)
    mapper, alpha = list(range(tokens)), [1.0] * tokens
    i, j = len(source), len(target)
    while j > 0:
        if i == 0 or score[i][j] == score[i][j - 1]:
            j -= 1
            mapper[j], alpha[j] = 0, 0.0
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            mapper[j] = i
    return mapper, alpha


def word_places(caption: str, tokenize: Tokenize) -> list[tuple[str, range]]:
    """The words of `caption` (separated by white space), each with the positions of its tokens.

    Raises ValueError naming the caption if its tokens are not those of its words one after the other.
    """
    places, at = [], 1
    for word in caption.split():
        places.append((word, range(at, at + len(tokenize(word)) - 2)))
        at = places[-1][1].stop
    if at != len(tokenize(caption)) - 1:
        raise ValueError(f"the tokens of {caption!r} are not those of its words")
    return places


def replacement_mapper(source: str, target: str, tokenize: Tokenize, tokens: int) -> Tensor:
    """The mapper of AttentionReplace: each target token's (column's) share in each source token (row), word for word.

    The result is [tokens, tokens]. As in the reference, where a word of m tokens is replaced by one of n, each of the
    m gives 1/n of its attention to each of the n; where m = n, they map one to one. Unlike there, words after a
    replacement of another length still map to their own, and so do the end marks; padding maps to the padding at its
    place. Raises ValueError naming both captions where their numbers of words differ or one does not fit into `tokens`.
    """
    sides = [word_places(caption, tokenize) for caption in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{source!r} has {len(sides[0])} words, but {target!r} has {len(sides[1])}")
    ends = [places[-1][1].stop if places else 1 for places in sides]
    if max(ends) >= tokens:
        raise ValueError(f"{source!r} or {target!r} does not fit into {tokens} tokens")
    mapper = torch.zeros(tokens, tokens)
    mapper[0, 0] = mapper[ends[0], ends[1]] = 1
    for at in range(ends[1] + 1, tokens):
        mapper[at, at] = 1
    for (_, theirs), (_, own) in zip(*sides, strict=True):
        if len(theirs) == len(own):
            mapper[list(theirs), list(own)] = 1
        else:
            mapper[theirs.start : theirs.stop, own.start : own.stop] = 1 / len(own)
    return mapper


def _same(word: str, other: str) -> bool:
    marks = ".,;:!?\"'()"
    return word.lower().strip(marks) == other.lower().strip(marks)


@dataclass(frozen=True, eq=False)
class Injection:
    """What the targets of n pairs take from their sources, and when.

    `carried` [n, tokens, tokens] (mapper times equalizer): how much of target token t's value (column) rides on the
    source's attention to token s (row). `kept` [n, tokens] (1 - alphas, times equalizer): the share of each target
    token's value that stays under the target's own attention. Both hold for a target token in the steps of its span,
    whose index in `spans` is in `span_of` [n, tokens] (cross_replace_steps); in all other steps the token keeps its own
    attention. Self-attention is injected in the first `self_fraction` of the steps (self_replace_steps), in layers of
    at most `self_max_tokens` tokens.
    """

    carried: Tensor
    kept: Tensor
    spans: tuple[Span, ...]
    span_of: Tensor
    self_fraction: float
    self_max_tokens: int

    def open_spans(self, step: int, steps: int) -> tuple[bool, ...]:
        """For each span, whether it holds `step` (counted from 0) of `steps`. The answer depends on no caption."""
        return tuple(injected_steps(start, steps) <= step < injected_steps(end, steps) for start, end in self.spans)

    def shares(self, opened: tuple[bool, ...]) -> tuple[Tensor, Tensor | None]:
        """`carried` and `kept` in steps that these spans hold; None for a `kept` that is all zeros."""
        alpha = torch.tensor(opened, dtype=self.kept.dtype)[self.span_of]
        kept = self.kept * alpha + (1 - alpha)
        return self.carried * alpha[:, None], kept if bool(kept.any()) else None


def edit_pairs(
    pairs: Sequence[tuple[str, str]],
    tokenize: Tokenize,
    tokens: int,
    *,
    edit: str,
    cross_fraction: float,
    self_fraction: float,
    self_max_tokens: int,
    reweight: Mapping[str, float] | None = None,
    word_spans: Mapping[str, Span] | None = None,
) -> Injection:
    """The injection for (source, target) captions by `edit`: "refine", "replace", or "none" (each token to its place).

    On top of that, `reweight` multiplies the attention to words of the target (equalizer), and `word_spans` gives
    words steps of their own instead of the first `cross_fraction` (cross_replace_steps by word). Words are compared
    without case or the punctuation around them; a word that a target does not have changes nothing there, and of two
    entries for one word the later counts. Raises ValueError naming the captions that cannot be aligned.
    """
    carried, kept = torch.zeros(len(pairs), tokens, tokens), torch.zeros(len(pairs), tokens)
    weight, span_of = torch.ones(len(pairs), tokens), torch.zeros(len(pairs), tokens, dtype=torch.long)
    factors, spans = dict(reweight or {}), dict(word_spans or {})
    for row, (source, target) in enumerate(pairs):
        if edit == "refine":
            mapper, alpha = refinement_mapper(tokenize(source), tokenize(target), tokens)
            # Columns are distinct, rows need not be: two target tokens on one source token are added by the product.
            carried[row, mapper, torch.arange(tokens)] = torch.tensor(alpha)
            kept[row] = 1 - torch.tensor(alpha)
        elif edit == "replace":
            carried[row] = replacement_mapper(source, target, tokenize, tokens)
        else:
            carried[row] = torch.eye(tokens)
        for word, places in word_places(target, tokenize) if factors or spans else ():
            at = slice(places.start, places.stop)
            for name, factor in factors.items():
                if _same(name, word):
                    weight[row, at] = factor
            for number, name in enumerate(spans, 1):
                if _same(name, word):
                    span_of[row, at] = number
    every = ((0.0, cross_fraction), *spans.values())
    return Injection(carried * weight[:, None], kept * weight, every, span_of, self_fraction, self_max_tokens)


def injected_steps(fraction: float, steps: int) -> int:
    """How many of `steps` a fraction covers, rounded down; 0.29 of 100 is 29 in spite of floating point."""
    return math.floor(fraction * steps + 1e-6)
