"""The edits of Prompt-to-Prompt as data: which token's value rides on whose attention.

It owns the alignment of two captions' token ids and the injection it leads to; it does not know UNets or steps in hand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def refinement_mapper(source: Sequence[int], target: Sequence[int], tokens: int) -> tuple[list[int], list[float]]:
    """For each of `tokens` positions of the target: the source's position, and 1 if aligned to it, else 0.

    Needleman–Wunsch over token ids (gap 0, match 1, mismatch -1); of equal alignments the one that leaves target
    tokens unaligned as late as possible, as the reference's traceback does. Padding maps to its own position. Raises
    ValueError where a sequence is longer than `tokens`.
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


@dataclass(frozen=True, eq=False)
class Injection:
    """What the targets of n pairs take from their sources, and when.

    `carried` [n, tokens, tokens]: how much of target token t's value (column) rides on the source's attention to token
    s (row). `kept` [n, tokens]: the share of each target token's value that stays under the target's own attention.
    Fractions are of the steps, from the first; self-injection reaches layers of at most `self_max_tokens` tokens.
    """

    carried: Tensor
    kept: Tensor
    cross_fraction: float
    self_fraction: float
    self_max_tokens: int

    def to(self, device: torch.device) -> "Injection":
        """The same on `device`."""
        return replace(self, carried=self.carried.to(device), kept=self.kept.to(device))


def refine(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    tokens: int,
    *,
    cross_fraction: float,
    self_fraction: float,
    self_max_tokens: int,
) -> Injection:
    """The `refine` edit for (source ids, target ids) of each pair: aligned tokens take the source's attention."""
    mapped = [refinement_mapper(source, target, tokens) for source, target in pairs]
    mapper = torch.tensor([positions for positions, _ in mapped])
    alpha = torch.tensor([weights for _, weights in mapped])
    # A scatter into distinct columns: two target tokens may share a source row, and the product then adds them up.
    carried = torch.zeros(len(pairs), tokens, tokens).scatter_(1, mapper[:, None], alpha[:, None])
    return Injection(carried, 1 - alpha, cross_fraction, self_fraction, self_max_tokens)


def injected_steps(fraction: float, steps: int) -> int:
    """How many of `steps` a fraction covers, rounded down, but 0.29 of 100 is 29."""
    return math.floor(fraction * steps + 1e-6)
