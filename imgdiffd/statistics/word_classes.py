"""The classes of words of which statistics say how often they differ between the two captions of a sample."""

from collections.abc import Sequence
from functools import lru_cache

from imgdiffd.method.nouns import COLOURS, noun_lemma

NOUN = "noun"
ACTION = "action"  # "sitting", "parked": participles that are not nouns
_LISTED = {
    "colour": " ".join(sorted(COLOURS))
    + " beige blonde colorful colourful crimson cyan golden ivory lavender magenta maroon multicolored multicoloured"
    " navy reddish silver tan teal turquoise violet",
    "size": "big enormous giant gigantic huge large larger little long mini miniature narrow short small smaller tall"
    " thick thin tiny wide",
    "number": "one two three four five six seven eight nine ten eleven twelve several many few multiple both dozen"
    " couple single 1 2 3 4 5 6 7 8 9 10 11 12",
    "material": "bamboo brass brick bronze cardboard ceramic clay concrete copper cotton denim fabric glass gold iron"
    " leather marble metal metallic paper plastic porcelain rubber stainless steel stone straw velvet wicker wood"
    " wooden wool woolen",
    "position": "above background behind below beneath beside bottom center centre corner foreground front inside left"
    " lower middle near outside over right top under underneath upper",
    "shape": "angular circular cubic curved flat oval pointed rectangular round rounded square triangular",
    "pattern": "checkered dotted floral patterned plaid plain polka spotted striped",
    "age": "ancient antique elderly modern new old vintage young",
}
_SAME = {
    "grey": "gray", "colourful": "colorful", "multicoloured": "multicolored", "wood": "wooden", "metal": "metallic",
    "wool": "woolen", "centre": "center", "larger": "large", "smaller": "small", "rounded": "round",
    "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven", "8": "eight",
    "9": "nine", "10": "ten", "11": "eleven", "12": "twelve",
}  # fmt: skip
_CLASS_OF = {word: name for name, words in _LISTED.items() for word in words.split()}
CLASSES = (NOUN, *_LISTED, ACTION)
_SHORTEST_PARTICIPLE = 5  # "ring", "king" and "bed" are none


@lru_cache(maxsize=65536)
def _class_of(word: str) -> tuple[str, str] | None:
    """The class of a lower-case word, with the form by which it is compared there."""
    if listed := _CLASS_OF.get(word):
        return listed, _SAME.get(word, word)
    if (lemma := noun_lemma(word)) is not None:
        return NOUN, lemma
    if len(word) > _SHORTEST_PARTICIPLE and word.endswith(("ing", "ed")):
        return ACTION, word
    return None


def words_by_class(tokens: Sequence[str], name: str | None) -> dict[str, set[str]]:
    """The words of each class that a caption has; classes without any are missing.

    `name`, that of the caption's object, counts as a noun alone: "an orange on a plate" names no colour, "a glass of
    milk" no material.
    """
    found: dict[str, set[str]] = {}
    for token in tokens:
        if (classed := _class_of(token)) is not None:
            kind, word = classed
            if kind not in found:
                found[kind] = set()
            found[kind].add(word)
    if name is not None:
        for kind in [kind for kind, words in found.items() if kind != NOUN and name in words]:
            found[kind].discard(name)
            if not found[kind]:
                del found[kind]
        found.setdefault(NOUN, set()).add(name)
    return found
