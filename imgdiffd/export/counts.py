"""Counts what a data card says of the samples of an export, one after the other, and how even their sides are."""

from collections import Counter

from imgdiffd.export.sample import Sample
from imgdiffd.method.phrases import object_name, tokens_of

LETTERS = ("A", "B")


class Counts:
    """The samples of an export: how many of each kind and split, where originals stand, which objects are told of.

    `kinds` counts by kind and split, `originals` the samples that ask for a difference by the side of the original,
    `letters` the others by their answer. `objects` counts region texts by the object that they are about, `pairs` the
    samples by both, in the order of replaced and replacing. `items` are the captions that have samples.
    """

    def __init__(self) -> None:
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.originals: Counter[str] = Counter()
        self.letters: Counter[str] = Counter()
        self.objects: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[str] = Counter()
        self.items: set[int] = set()

    def note(self, sample: Sample) -> None:
        """Count a sample."""
        self.kinds[sample.kind, sample.split] += 1
        self.items.add(sample.item)
        if sample.reason:
            self.reasons[sample.reason] += 1
        if sample.answer in LETTERS:
            self.letters[sample.answer] += 1
        else:
            self.originals[sample.original] += 1
        left, right = (object_name(tokens_of(text)) if text else None for text in (sample.text_left, sample.text_right))
        self.objects.update(name for name in (left, right) if name)
        if left and right and left != right:
            self.pairs[(left, right) if sample.original == "left" else (right, left)] += 1

    @property
    def samples(self) -> int:
        """How many there are."""
        return self.kinds.total()

    def of_kind(self, kind: str) -> int:
        """How many of this kind there are, in all splits."""
        return sum(number for (each, _), number in self.kinds.items() if each == kind)

    def of_split(self, split: str) -> int:
        """How many of this split there are, of all kinds."""
        return sum(number for (_, each), number in self.kinds.items() if each == split)

    def balances(self) -> str:
        """How even the sides are: `left/right 50.2 % / 49.8 %; A/B 49.9 % / 50.1 %`; "" without samples."""
        told = (("left/right", self.originals, ("left", "right")), ("A/B", self.letters, LETTERS))
        return "; ".join(f"{name} {_shares(counts, sides)}" for name, counts, sides in told if counts)


def _shares(counts: Counter[str], sides: tuple[str, str]) -> str:
    return " / ".join(f"{counts[side] / counts.total():.1%}".replace("%", " %") for side in sides)
