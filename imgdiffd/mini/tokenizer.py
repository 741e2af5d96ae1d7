"""Builds the CLIPTokenizer that both text encoders of the painter and the CLIP share: one token for each world word.

Other words fall back to pieces, down to single bytes.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from imgdiffd.mini.world import COLOURS, NOTHING, NOUNS, PLACES, caption_of

MAX_TOKENS = 77
"""As in CLIP, so that the pipeline's law on a caption's length is the same for every bundle."""

BEGIN, END = "<|startoftext|>", "<|endoftext|>"

COMMON_WORDS = (
    "the of with is to man next sitting white standing two street people top down woman riding that it large cat group "
    "train dog holding some near small person young water up parked table by front couple side horse has room building "
    "wearing bench covered boat filled through bed while other walking food three his out city its under from each boy "
    "air close sits there photo men around back this player inside her across behind wall picture together flying "
    "outside sidewalk big girl looking several black brown gray kitchen bathroom bus field playing window different "
    "left right image difference object changed what replaced describe"
)
"""Frequent words of captions at large: they keep real captions well under `MAX_TOKENS`."""


def build_tokenizer() -> CLIPTokenizer:
    """The world's CLIPTokenizer: byte-level BPE whose merges make one token of each known word."""
    phrases = [caption_of([(noun, colour)], place) for noun in NOUNS for colour in COLOURS for place in PLACES]
    words = sorted({*" ".join([*phrases, NOTHING, "and", COMMON_WORDS]).replace(",", " ").replace("8", " ").split()})
    vocabulary, merges = _train_merges(words)
    vocabulary |= {BEGIN: len(vocabulary), END: len(vocabulary) + 1}
    # The annotation of `merges` says strings; what the library passes on to its BPE model, and wants, is pairs.
    return CLIPTokenizer(vocab=vocabulary, merges=cast("list[str]", merges), model_max_length=MAX_TOKENS)


def _train_merges(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair merges learnt until every word is one token; all single bytes come first in the vocabulary.

    Ties go to the alphabetically first pair: the library's own trainer breaks them by chance, and the weights that
    are trained on it depend on the ids.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    spelt = [(*word[:-1], word[-1] + "</w>") for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in spelt for pair in itertools.pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces.append("".join(best))
        spelt = [_merged(word, best) for word in spelt]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}, merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def main() -> None:
    """Write the tokenizer to a folder."""
    parser = argparse.ArgumentParser(description=build_tokenizer.__doc__)
    parser.add_argument("folder", type=Path)
    build_tokenizer().save_pretrained(parser.parse_args().folder)


if __name__ == "__main__":
    main()
