"""Replaces one object of a caption by another of its kind, from WordNet and without a model (paper, section 11)."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from imgdiffd.method.messages import RewriteOutput
from imgdiffd.method.nouns import COLOURS, noun_lemma
from imgdiffd.method.plurals import INVARIANT, plural_of
from imgdiffd.method.profile_sections import Rewrite
from imgdiffd.method.rewriting import judge_answer

TRIES = 16  # draws for a caption before it is given up
_LONGEST = 3  # words of a name
_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_POSSESSIVE = re.compile(r"['’]s?$")
_GAP = re.compile(r"\s+")

_FEMALE = frozenset({"ballerina", "lady", "nun", "waitress", "woman", "girl", "schoolgirl"})
_MALE = frozenset(
    {"boy", "cowboy", "fireman", "fisherman", "gentleman", "man", "monk", "policeman", "priest", "waiter"}
)
_HIS, _HER = frozenset({"he", "him", "his", "himself"}), frozenset({"she", "her", "hers", "herself"})
_ONE = frozenset({"a", "an", "one", "each", "every", "another", "this", "single"})
_SEVERAL = frozenset({"two", "three", "four", "five", "six", "several", "many", "few", "both", "these"})
# Nouns that say what an object is made of: it is still an object of its own behind one.
_MATERIALS = frozenset({"brick", "cardboard", "glass", "metal", "paper", "plastic", "steel", "stone", "wood"})
_GROUPS = (["herd"], ["group"], ["flock"], ["bunch"], ["couple"], ["pair"], ["row"], ["lot"], ["lots"])
_ALIASES = {"people": "person"}
# Where all names of a group are kinds of a name ("bird"), one of this group replaces it.
_NEIGHBOURS = {"living_thing/bird": "living_thing/pet", "furniture/table": "furniture/storage"}
_SILENT_H, _LIKE_W = ("hour", "heir", "honest", "honor"), ("uni", "use", "eu", "one", "ukulele", "urinal", "utensil")


@dataclass(frozen=True, slots=True)
class ObjectName:
    """A name of the lexicon: its category and group, the line of its concept, and how it may be used.

    A name that does not replace is only replaced. One that is a `mass` has no plural and takes no "a".
    """

    text: str
    category: str
    group: str
    concept: int
    replaces: bool
    mass: bool


@dataclass(frozen=True, slots=True)
class Replaced:
    """A caption with one object replaced, and which by which."""

    caption: str
    old: ObjectName
    new: ObjectName


@dataclass(frozen=True, slots=True)
class Mention:
    """An object's name in a caption: where it begins and ends, and whether it is a plural."""

    name: ObjectName
    start: int
    end: int
    plural: bool


class Lexicon:
    """Names by group, and which concepts are above others."""

    def __init__(self, text: str) -> None:
        self.names: dict[str, ObjectName | None] = {}  # None: a name of several words that is left alone
        self._above: list[frozenset[int]] = []  # of each concept, itself and those that it belongs to
        self._replacing: dict[str, list[ObjectName]] = {}
        group, path = "", list[int]()
        for line in text.splitlines():
            told = line.lstrip(" ")
            if not line.startswith(" "):
                group = told.removesuffix(":")
                continue
            path = [*path[: len(line) - len(told) - 1], len(self._above)]
            self._above.append(frozenset(path))
            for each in told.split(", "):
                self._add(each, group, path[-1])

    def _add(self, told: str, group: str, concept: int) -> None:
        text = told.rstrip("?~")
        if group == "-":
            self.names[text] = None
            return
        name = ObjectName(text, group.partition("/")[0], group, concept, "?" not in told, "~" in told)
        self.names[text] = name
        if name.replaces:
            self._replacing.setdefault(group, []).append(name)

    def others(self, name: ObjectName) -> list[ObjectName]:
        """The names that may replace `name`: like it, but neither more general nor a kind of it."""
        for group in (name.group, _NEIGHBOURS.get(name.group, "")):
            if others := [
                other
                for other in self._replacing.get(group, [])
                if other.mass == name.mass and not self._related(name.concept, other.concept)
            ]:
                return others
        return []

    def _related(self, one: int, other: int) -> bool:
        return one in self._above[other] or other in self._above[one]

    def find(self, caption: str) -> list[Mention]:
        """The objects in a caption that could be replaced, each under its longest name."""
        words = list(_WORD.finditer(caption))
        texts = [_POSSESSIVE.sub("", word.group().lower()) for word in words]
        found = list[Mention]()
        place = 0
        while place < len(words):
            length = self._length(caption, words, texts, place)
            each = self._object(caption, words, texts, place, length) if length else None
            if each is not None:
                found.append(each)
            place += max(1, length)
        return found

    def _length(self, caption: str, words: Sequence[re.Match[str]], texts: Sequence[str], place: int) -> int:
        """How many words the longest name at `place` has, 0 where there is none."""
        for length in range(min(_LONGEST, len(words) - place), 0, -1):
            gaps = (caption[words[at].end() : words[at + 1].start()] for at in range(place, place + length - 1))
            if all(map(_GAP.fullmatch, gaps)) and self._key(texts[place : place + length]) is not None:
                return length
        return 0

    def _key(self, texts: Sequence[str]) -> str | None:
        """Those words as the lexicon has them, the last one in the singular."""
        *before, last = texts
        for form in (_ALIASES.get(last, last), noun_lemma(last)):
            if form is not None and (key := " ".join((*before, form))) in self.names:
                return key
        return None

    def _object(
        self, caption: str, words: Sequence[re.Match[str]], texts: Sequence[str], place: int, length: int
    ) -> Mention | None:
        """The object that is named there, unless the name only describes another one ("a dog house")."""
        key = self._key(texts[place : place + length])
        name = self.names[key] if key is not None else None
        if name is None or not self.others(name):
            return None
        last = place + length - 1
        before = _joined(caption, words, texts, place - 1, place)
        after = _joined(caption, words, texts, last + 1, last)
        one = before in _ONE
        ending = key != " ".join(texts[place : place + length])  # a plural's
        if name.text in COLOURS and not ending:
            return None  # "an orange and white cat"; but "two oranges"
        if after in COLOURS or (noun_lemma(after) is not None and not ending and not (one and after.endswith("s"))):
            return None  # "a mustard yellow car", "a dog house"; but "dogs play", "a dog sits"
        if before not in _MATERIALS and noun_lemma(before) is not None:
            return None  # "a toy dog"
        several = ending or _several(name, texts, place)
        return Mention(name, words[place].start(), words[last].start() + len(texts[last]), several and not one)


def _joined(caption: str, words: Sequence[re.Match[str]], texts: Sequence[str], at: int, beside: int) -> str:
    """The word at `at`, if nothing but space is between it and the one `beside` it, and neither is a possessive."""
    if not 0 <= at < len(words):
        return ""
    first = min(at, beside)
    between = caption[words[first].start() + len(texts[first]) : words[first + 1].start()]
    return texts[at] if _GAP.fullmatch(between) else ""


def _several(name: ObjectName, texts: Sequence[str], place: int) -> bool:
    """Whether a name without a plural's ending stands for several: "two sheep", "a herd of zebra"."""
    before = texts[max(0, place - 3) : place]
    if name.text in INVARIANT and not _ONE & set(before):
        return True
    return bool(_SEVERAL & set(before)) or (before[-1:] == ["of"] and not name.mass and before[-2:-1] in _GROUPS)


@cache
def lexicon() -> Lexicon:
    """The lexicon that comes with imgdiffd."""
    return Lexicon(resources.files("imgdiffd.method").joinpath("data", "lexicon.txt").read_text("utf-8"))


def replace_object(caption: str, seed: int, rewrite: Rewrite) -> Replaced | None:
    """The caption with one object replaced as `seed` draws it; None where it has none that could be.

    What the rules for a language model's answers would refuse is drawn again, TRIES times at most.
    """
    found = lexicon().find(caption)
    draw = random.Random(seed)
    for _ in range(TRIES if found else 0):
        old = draw.choice(found)
        others = [name for name in lexicon().others(old.name) if _fits(name, caption)]
        if not others:
            continue
        new = draw.choice(others)
        answer = _put(caption, old, new)
        output = RewriteOutput(0, answer, truncated=False, caption_tokens=0, answer_tokens=0, seed=seed)
        if judge_answer(caption, output, rewrite).passed:
            return Replaced(answer, old.name, new)
    return None


def _fits(name: ObjectName, caption: str) -> bool:
    """Whether a name is not in the caption yet and agrees with its pronouns."""
    words = set(_WORD.findall(caption.lower()))
    if name.text in _FEMALE and words & _HIS:
        return False
    if name.text in _MALE and words & _HER:
        return False
    return not set(name.text.split()) & words and plural_of(name.text) not in words


def _put(caption: str, old: Mention, new: ObjectName) -> str:
    text = plural_of(new.text) if old.plural else new.text
    if len(caption[old.start : old.end]) > 1 and caption[old.start : old.end].isupper():
        text = text.upper()
    elif caption[old.start].isupper():
        text = text[0].upper() + text[1:]
    before = caption[: old.start]
    article = re.search(r"\b(an?)(\s+)$", before, re.IGNORECASE)
    if article is not None:
        before = before[: article.start()] + _article(article[1], text) + article[2]
    return before + text + caption[old.end :]


def _article(old: str, word: str) -> str:
    """ "a" or "an", as `word` is spoken, in the case of the one that was there."""
    vowel = word[0].lower() in "aeiou" and not word.lower().startswith(_LIKE_W)
    new = "an" if vowel or word.lower().startswith(_SILENT_H) else "a"
    return new.capitalize() if old[0].isupper() else new
