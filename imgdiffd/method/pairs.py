"""What became of captions that a rewriter was asked about: the pairs, and how they are counted."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from imgdiffd.method.lexicon import lexicon
from imgdiffd.method.messages import RewriteOutput
from imgdiffd.method.nouns import changed_nouns, noun_lemma, split_words
from imgdiffd.method.profile_sections import Rewrite
from imgdiffd.method.rewriting import clean_answer, judge_answer

EXAMPLES = 10
OTHER = "other"  # the category of an object that the lexicon does not have


@dataclass(frozen=True, slots=True)
class CaptionPair:
    """A caption and its rewrite, with the nouns that only the one or the other has."""

    caption1: str
    caption2: str
    nouns1: tuple[str, ...]
    nouns2: tuple[str, ...]
    round: int
    seed: int


@dataclass(slots=True)
class PairCounts:
    """How many captions were asked about, of how many an object was replaced, and why answers were refused.

    `unreadable` are records without a usable caption; `categories` are those of replaced objects, as the lexicon has
    them. `examples` are the first pairs that differ in what they replace.
    """

    captions: int = 0
    unreadable: int = 0
    replaced: int = 0
    pairs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    examples: list[CaptionPair] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "captions": self.captions,
            "unreadable": self.unreadable,
            "replaced": self.replaced,
            "pairs": self.pairs,
            "categories": dict(self.categories.most_common()),
            "refused": dict(self.refused.most_common()),
            "examples": [asdict(pair) for pair in self.examples],
        }

    def take(self, caption: str, outputs: list[RewriteOutput], rewrite: Rewrite) -> list[CaptionPair]:
        """Count a caption with the answers of every round; returns its pairs, equal ones once."""
        found: dict[str, CaptionPair] = {}
        for number, output in enumerate(outputs, 1):
            verdict = judge_answer(caption, output, rewrite)
            if verdict.reason is not None:
                self.refused[verdict.reason] += 1
                continue
            caption2 = clean_answer(output.answer or "")
            pair = CaptionPair(caption, caption2, *changed_nouns(caption, caption2), number, output.seed)
            found.setdefault(caption2, pair)
        self.captions += 1
        self.replaced += bool(found)
        self.pairs += len(found)
        for pair in found.values():
            self.categories[category_of(pair)] += 1
            if len(self.examples) < EXAMPLES and pair.nouns1 not in {each.nouns1 for each in self.examples}:
                self.examples.append(pair)
        return list(found.values())


def category_of(pair: CaptionPair) -> str:
    """The lexicon's category of the object that was replaced."""
    for mention in lexicon().find(pair.caption1):
        *_, last = split_words(pair.caption1[mention.start : mention.end])
        if noun_lemma(last) in pair.nouns1:
            return mention.name.category
    return OTHER
