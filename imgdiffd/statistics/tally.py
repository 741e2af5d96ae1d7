"""Counts what statistics say of the samples of one kind, one sample after the other, in about 300 bytes for each."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from imgdiffd.errors import counted
from imgdiffd.method.phrases import content_words, object_name, tokens_of
from imgdiffd.statistics.images import image_repeats
from imgdiffd.statistics.objects365 import object_names
from imgdiffd.statistics.rarefaction import expected_kinds
from imgdiffd.statistics.report import (
    Count,
    Diversity,
    Histogram,
    KindStatistics,
    Name,
    NamePair,
    Repeats,
    WordClass,
)
from imgdiffd.statistics.word_classes import CLASSES, words_by_class

TOP = 20
_LAW_SAMPLES, _LAW_SHARE = 30, 0.05  # a class that differs in fewer of so many samples is one that never changes
_BIN, _BARS = 0.005, 24  # of a histogram: the width of a bin, and how many are shown at most

_K = TypeVar("_K", str, tuple[str, str])


@dataclass(frozen=True, slots=True)
class Seen:
    """A sample as statistics see it: what its two captions say, the second of which a kind may lack.

    `pair` is the same for samples from the same two images, `caption` what these were painted from.
    """

    texts: tuple[str, ...]
    pair: str
    images: tuple[Path, Path]
    caption: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


class _Scores:
    """A score's histogram over bins that are narrow enough for any bound."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()
        self._sum, self._least, self._most = 0.0, math.inf, -math.inf

    def add(self, score: float) -> None:
        self._bins[int(score // _BIN)] += 1
        self._sum += score
        self._least = min(self._least, score)
        self._most = max(self._most, score)

    def histogram(self, name: str) -> Histogram:
        """Its bins, joined to at most _BARS."""
        first, last = min(self._bins), max(self._bins)
        wide = -(-(last + 1 - first) // _BARS)
        counts = [0] * -(-(last + 1 - first) // wide)
        for place, number in self._bins.items():
            counts[(place - first) // wide] += number
        return Histogram(
            name=name,
            low=first * _BIN,
            width=wide * _BIN,
            counts=tuple(counts),
            least=self._least,
            mean=self._sum / self._bins.total(),
            most=self._most,
        )


class KindTally:
    """What is counted of one kind. At most `images` pairs are drawn at random, by `seed`, to look at their images."""

    def __init__(self, images: int, seed: int) -> None:
        self.samples = 0
        self._known = object_names()
        self._names: Counter[str] = Counter()  # by occurrence
        self._named_in: Counter[str] = Counter()  # by sample
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._nameless = self._same_name = 0
        self._both, self._differ, self._one = Counter[str](), Counter[str](), Counter[str]()
        self._two_texts = 0
        self._exact: Counter[int] = Counter()
        self._near: Counter[int] = Counter()
        self._captions: Counter[int] = Counter()
        self._scores: dict[str, _Scores] = {}
        self._last_pair = ""
        self._seen_pairs = 0
        self._drawn: list[tuple[Path, Path]] = []
        self._images = images
        self._random = random.Random(seed)

    def add(self, sample: Seen) -> None:
        """Count a sample. Samples of one pair come one after the other."""
        self.samples += 1
        tokens = [tokens_of(text) for text in sample.texts]
        names = [object_name(each, self._known) for each in tokens]
        for number, name in enumerate(names):
            if name is None:
                self._nameless += 1
                continue
            self._names[name] += 1
            self._named_in[name] += name not in names[:number]
        if len(tokens) == 2:
            self._compare(tokens, names)
        self._exact[hash(" | ".join(" ".join(each) for each in tokens))] += 1
        self._near[hash(frozenset(map(content_words, tokens)))] += 1
        for name, score in sample.scores.items():
            if name not in self._scores:
                self._scores[name] = _Scores()
            self._scores[name].add(score)
        if sample.pair != self._last_pair:
            self._last_pair = sample.pair
            self._draw(sample)

    def _compare(self, tokens: Sequence[Sequence[str]], names: Sequence[str | None]) -> None:
        self._two_texts += 1
        first, second = names
        if first is not None and second is not None:
            if first == second:
                self._same_name += 1
            else:
                self._pairs[first, second] += 1
        words1, words2 = (words_by_class(each, name) for each, name in zip(tokens, names, strict=True))
        for kind in words1.keys() | words2.keys():
            if kind in words1 and kind in words2:
                self._both[kind] += 1
                self._differ[kind] += words1[kind] != words2[kind]
            else:
                self._one[kind] += 1

    def _draw(self, sample: Seen) -> None:
        """A random part of the pairs, each with the same chance (reservoir sampling)."""
        self._seen_pairs += 1
        if sample.caption:
            self._captions[hash(content_words(tokens_of(sample.caption)))] += 1
        if len(self._drawn) < self._images:
            self._drawn.append(sample.images)
        elif (place := self._random.randrange(self._seen_pairs)) < self._images:
            self._drawn[place] = sample.images

    def report(self, kind: str, drawn: int) -> KindStatistics:
        """All of it, with counts rarefied to `drawn` samples. Looks at the images that were drawn."""
        words = tuple(
            WordClass(
                name=name,
                both=self._both[name],
                differ=self._differ[name],
                one=self._one[name],
                none=self._two_texts - self._both[name] - self._one[name],
            )
            for name in CLASSES
            if self._both[name] or self._one[name]
        )
        captions = self._captions.total()
        return KindStatistics(
            kind=kind,
            samples=self.samples,
            captions=captions,
            repeated_captions=_repeats(self._captions, min(drawn, captions)) if captions else None,
            diversity=self._diversity(drawn),
            words=words,
            laws=tuple(law for each in words if (law := _law(each))),
            repeats=Repeats(exact=_repeats(self._exact, drawn), near=_repeats(self._near, drawn)),
            images=image_repeats(self._drawn) if self._drawn else None,
            scores=tuple(self._scores[name].histogram(name) for name in sorted(self._scores)),
        )

    def _diversity(self, drawn: int) -> Diversity:
        known = self._known
        unordered: Counter[tuple[str, ...]] = Counter()
        for pair, number in self._pairs.items():
            unordered[tuple(sorted(pair))] += number
        return Diversity(
            names=self._names.total(),
            nameless=self._nameless,
            categories=_kinds(self._named_in.values(), self.samples, drawn),
            objects365=sum(number for name, number in self._names.items() if name in known),
            pairs=_kinds(self._pairs.values(), self.samples, drawn),
            unordered_pairs=_kinds(unordered.values(), self.samples, drawn),
            same_name=self._same_name,
            top_names=tuple(
                Name(name=name, count=number, objects365=name in known) for name, number in _top(self._names)
            ),
            top_pairs=tuple(
                NamePair(first=first, second=second, count=number) for (first, second), number in _top(self._pairs)
            ),
        )


def _top(counts: Mapping[_K, int]) -> list[tuple[_K, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:TOP]


def _kinds(samples_with: Iterable[int], total: int, drawn: int) -> Count:
    numbers = list(samples_with)
    return Count(count=len(numbers), rarefied=expected_kinds(numbers, total, drawn) if drawn <= total else None)


def _repeats(groups: Mapping[int, int], drawn: int) -> Count:
    """How many members of groups are not the first of theirs."""
    total = sum(groups.values())
    kinds = _kinds(groups.values(), total, drawn)
    return Count(
        count=total - kinds.count, rarefied=None if kinds.rarefied is None else max(0.0, drawn - kinds.rarefied)
    )


def _law(words: WordClass) -> str:
    """A sentence where words of a class nearly always stay the same, so that a model learns that they do."""
    if words.both < _LAW_SAMPLES or words.differ >= _LAW_SHARE * words.both:
        return ""
    how_often = "never change" if not words.differ else "almost never change"
    differ = f"they differ in {words.differ:,} ({100 * words.differ / words.both:.1f} %)"
    return (
        f"{words.name} words {how_often}: both captions of {counted(words.both, 'sample')} have some, and {differ};"
        " a model trained on these learns that as a law"
    )
