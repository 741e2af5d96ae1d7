"""Finds the nouns that a rewrite changed, as WordNet's lemmas: the box filter matches crops with them (paper, 3.2)."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache, lru_cache
from importlib import resources

# The basic colour terms; WordNet lists each as a noun too, but in a caption they are properties of an object.
COLOURS = frozenset(
    {"black", "white", "red", "green", "yellow", "blue", "brown", "orange", "pink", "purple", "gray", "grey"}
)

# WordNet's rules of detachment for nouns, in their order (morphy(7WN)).
_DETACHMENTS = (
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_POSSESSIVE = re.compile(r"['’]s?$")


@cache
def _nouns() -> frozenset[str]:
    return frozenset(resources.files("imgdiffd.method").joinpath("data", "nouns.txt").read_text("utf-8").split())


@cache
def _irregular() -> dict[str, str]:
    text = resources.files("imgdiffd.method").joinpath("data", "noun_exceptions.txt").read_text("utf-8")
    return dict(reversed([(form, lemma) for form, lemma in map(str.split, text.splitlines())]))


def split_words(caption: str) -> list[str]:
    """The caption's words, lower-case and without punctuation or a possessive 's; inner hyphens stay."""
    return [_POSSESSIVE.sub("", word) for word in _WORD.findall(caption.lower())]


def regular_bases(word: str) -> Iterator[str]:
    """What WordNet's rules make of a plural, words or not."""
    if len(word) <= 2 or word.endswith("ss"):
        return
    for ending, replacement in _DETACHMENTS:
        if word.endswith(ending):
            yield word.removesuffix(ending) + replacement


def noun_lemma(word: str) -> str | None:
    """The lemma of a lower-case word ("dog" for "dogs"), or None for a word that is rarely used as a noun.

    A hyphenated word that WordNet lacks counts as its last part. Colours and function words are not nouns.
    """
    nouns = _nouns()
    if word in COLOURS:
        return None
    if word in _irregular():
        return _irregular()[word]
    if word in nouns:
        return word
    for base in regular_bases(word):
        if base in nouns:
            return base
    head = word.rpartition("-")[2]
    return noun_lemma(head) if head != word else None


def _changed_words(words1: Sequence[str], words2: Sequence[str]) -> tuple[list[str], list[str]]:
    # What difflib.Differ marks "-" and "+", without its cubic search for similar lines inside a replaced block.
    only1: list[str] = []
    only2: list[str] = []
    for tag, start1, end1, start2, end2 in SequenceMatcher(None, words1, words2).get_opcodes():
        if tag != "equal":
            only1 += words1[start1:end1]
            only2 += words2[start2:end2]
    return only1, only2


@lru_cache(maxsize=64)  # asked twice of an answer: to judge it, then to store them
def changed_nouns(caption1: str, caption2: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lemmas of the nouns that only caption 1 and only caption 2 have, each in order of appearance and once.

    Words are compared in sequence, so a noun that one caption mentions more often counts; a lemma among the changed
    words of both (a word that moved, or turned plural) does not. The pair is worth locating unless both are empty.
    """
    only1, only2 = _changed_words(split_words(caption1), split_words(caption2))
    lemmas1 = dict.fromkeys(lemma for word in only1 if (lemma := noun_lemma(word)) is not None)
    lemmas2 = dict.fromkeys(lemma for word in only2 if (lemma := noun_lemma(word)) is not None)
    return (
        tuple(lemma for lemma in lemmas1 if lemma not in lemmas2),
        tuple(lemma for lemma in lemmas2 if lemma not in lemmas1),
    )
