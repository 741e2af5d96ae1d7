"""Names the object that a caption is about: the head noun of its first noun phrase (paper, 5.2)."""

import re
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache

from imgdiffd.method.nouns import COLOURS, noun_lemma

_TOKEN = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")
_POSSESSIVE = re.compile(r"['’]s?$")


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_ONE = _words("a an one this that each every another")
NUMBERS = _words(
    "one two three four five six seven eight nine ten eleven twelve twenty dozen several many few some multiple"
)
_DETERMINERS = _ONE | NUMBERS | _words("the these those any its his her their our my your both all")
# Function words and verbs of captions: no noun phrase goes on over one of these.
_BREAKS = _words(
    "about above across after against along among around as at be been before behind being below beneath beside",
    "between beyond but by can contains depicts described despite displays down during every features for from had",
    "has have he her him in include includes inside into is it like near next of off on onto or out outside over past",
    "she showing shown shows so than that the their them then there they through to toward towards under underneath",
    "until up upon was we were what when where which while who whom with within without you",
)
# What a caption shows its object in or as, rather than the object: "the image shows a dog", "a close-up of a dog".
_FRAMES = _words(
    "image picture photo photograph snapshot region view scene close-up closeup shot object item thing subject",
    "coordinate description foreground background caption depiction focus detail",
)
# Skipped where "of" follows: "a group of people", "the top of a building".
_PARTS = _words(
    "area back bit bottom bunch centre center collection corner couple edge end flock front group half herd hint kind",
    "left lot middle number pack pair part patch piece pile portion rest right row section series set side slice sort",
    "stack top type variety",
)
_LONGEST = 3  # words of a name
_noun = lru_cache(maxsize=65536)(noun_lemma)


def tokens_of(caption: str) -> list[str]:
    """The caption's words, lower-case and without a possessive 's, and its punctuation marks."""
    tokens = _TOKEN.findall(caption.lower())
    if "'" in caption or "’" in caption:
        return [_POSSESSIVE.sub("", token) or token for token in tokens]
    return tokens


def object_name(tokens: Sequence[str], names: Container[str] = ()) -> str | None:
    """The singular name of the object that comes first, or None where there is no noun.

    Of "an orange moon" it is "moon", of "an orange on a plate" "orange", of "the image shows a pair of shoes" "shoe".
    It is the longest of `names` that ends with the head noun, up to three words ("traffic light"), else that noun.
    """
    fallback = None
    for head in _heads(tokens):
        name = _longest(tokens, head, names)
        following = tokens[head + 1] if head + 1 < len(tokens) else ""
        if name not in _FRAMES and not (following == "of" and name in _PARTS):
            return name
        fallback = fallback or name
    return fallback


def _longest(tokens: Sequence[str], head: int, names: Container[str]) -> str:
    lemma = _noun(tokens[head]) or tokens[head]
    for words in range(min(_LONGEST, head + 1), 1, -1):
        name = " ".join((*tokens[head + 1 - words : head], lemma))
        if name in names:
            return name
    return lemma


def _heads(tokens: Sequence[str]) -> Iterator[int]:
    """Where the last noun of each noun phrase stands."""
    determiner, head, fruit = "", -1, -1  # `fruit`: a colour that is the object's name if no noun follows it
    for place, word in enumerate(tokens):
        if head >= 0:
            if _goes_on(tokens, place, determiner):
                head = place if _noun(word) else head
                continue
            yield head
            determiner, head = "", -1
        if word in _DETERMINERS:
            if fruit >= 0:
                yield fruit
            determiner, fruit = word, -1
        elif _noun(word) and word not in _BREAKS:
            head, fruit = place, -1
        elif word in {"orange", "oranges"}:
            fruit = place
        elif fruit >= 0 and (word in _BREAKS or word == "."):
            yield fruit
            fruit = -1
    if max(head, fruit) >= 0:
        yield max(head, fruit)


def _goes_on(tokens: Sequence[str], place: int, determiner: str) -> bool:
    """Whether the word at `place` belongs to the noun phrase that the noun in front of it is in."""
    word = tokens[place]
    if word in COLOURS:  # "a light brown horse", but "a horse, brown and white, in a field"
        rest = (tokens[later] for later in range(place + 1, len(tokens)))
        following = next((each for each in rest if each not in COLOURS and each != "and"), "")
        return following not in _BREAKS and _noun(following) is not None
    lemma = _noun(word)
    if lemma is None or word in _BREAKS or word in _DETERMINERS:
        return False
    if determiner in _ONE and lemma != word and word.endswith("s"):
        return False  # a verb: "a plane flies"
    return not (word.endswith("ing") and place + 1 < len(tokens) and tokens[place + 1] in _DETERMINERS)


def content_words(tokens: Sequence[str]) -> frozenset[str]:
    """The words that say something, nouns as lemmas: equal for captions that differ in order and function words."""
    return frozenset(map(_content, tokens)) - {""}


@lru_cache(maxsize=65536)
def _content(token: str) -> str:
    """What a token says, '' for function words and punctuation."""
    if token in _BREAKS or token in _DETERMINERS or not token[0].isalnum():
        return ""
    return _noun(token) or token
