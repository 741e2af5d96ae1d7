"""Derives the list of nouns that `imgdiffd.method.nouns` reads from WordNet 3.0's dictionary files.

Run it with the folder that holds index.noun (Debian: /usr/share/wordnet of the package wordnet-base):
`python -m tests.reference.build_nouns FOLDER`.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parents[2] / "imgdiffd" / "method" / "data"
PARTS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}  # ss_type of senseidx(5WN)
# Lexicographer files of objects that can be seen: animal, artifact, body, food, object, person, plant (lexnames(5WN)).
OBJECTS = frozenset({5, 6, 8, 13, 17, 18, 20})

# WordNet has no function words, but rare nouns with the same spelling ("a" the letter, "in" the inch).
FUNCTION_WORDS = """
    about above across after against all along am among an and any are around as at be been before behind below
    beneath beside between beyond both but by did do does doing done down during each either else etc ever every few
    for from get gets getting go goes going got had has have having he her here hers him his how if in inside into is
    it its just least less like lot lots made make many may me might mine more most much must my near neither no none
    nor not now of off on once one onto or other others our out outside over own past per she should since so some
    such than that the their them then there these they this those three through till to too toward two under until
    up upon us very was we were what when where which while who whom why will with within without would yes yet you
    your
"""
SHORT_NOUNS = frozenset({"ox", "tv"})  # every other one of at most two letters is a symbol or an abbreviation


@dataclass
class Dictionary:
    """What the rules need of WordNet: the parts of speech of each lemma, and how often each occurs."""

    members: dict[str, set[str]] = field(default_factory=dict)  # part of speech -> lemmas
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # part of speech -> lemma -> tagged occurrences
    objects: Counter[str] = field(default_factory=Counter)  # the noun's occurrences in a sense that is an object
    first_is_object: set[str] = field(default_factory=set)
    some_is_object: set[str] = field(default_factory=set)
    irregular_verbs: dict[str, str] = field(default_factory=dict)  # form -> lemma


def _entries(path: Path) -> Iterator[list[str]]:
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith(" "):  # the licence
            yield line.split()


def read_dictionary(folder: Path) -> Dictionary:
    """Read the index files, the tag counts and the lexicographer files of the nouns."""
    words = Dictionary()
    file_of = {entry[0]: int(entry[1]) for entry in _entries(folder / "data.noun")}
    for part in ("noun", "verb", "adj", "adv"):
        words.counts[part] = Counter()
        words.members[part] = {entry[0] for entry in _entries(folder / f"index.{part}")}
    for entry in _entries(folder / "index.noun"):
        files = [file_of[offset] for offset in entry[-int(entry[2]) :]]
        if files[0] in OBJECTS:
            words.first_is_object.add(entry[0])
        if not OBJECTS.isdisjoint(files):
            words.some_is_object.add(entry[0])
    words.irregular_verbs = {entry[0]: entry[1] for entry in _entries(folder / "verb.exc")}
    for key, _, count in _entries(folder / "cntlist.rev"):
        lemma, _, rest = key.partition("%")
        kind, file, *_ = rest.split(":")
        words.counts[PARTS[kind]][lemma] += int(count)
        if kind == "1" and int(file) in OBJECTS:
            words.objects[lemma] += int(count)
    return words


def is_noun(lemma: str, words: Dictionary) -> bool:
    """Whether a bare `lemma` is read as a noun: where that is its most frequent part of speech, or an object's name.

    "sign", "ring" and "bear" are mostly verbs in the tagged texts, which are not about images: a sense that is an
    object lets a noun win against a more frequent verb, never against an adjective.
    """
    noun, verb = words.counts["noun"][lemma], words.counts["verb"][lemma]
    adjective = max(words.counts["adj"][lemma], words.counts["adv"][lemma])
    if noun > max(verb, adjective):
        return True
    modifies = lemma in words.members["adj"] or lemma in words.members["adv"]
    if modifies and (adjective > noun or (adjective == noun and lemma not in words.first_is_object)):
        return False
    if lemma not in words.members["verb"] or noun == verb > 0:
        return True
    if verb == 0:
        return lemma in words.some_is_object
    share = 100 if lemma in words.first_is_object else 10
    return (
        verb <= share * words.objects[lemma]
        or (lemma in words.first_is_object and verb < 10)
        or (lemma in words.some_is_object and verb <= 2 * noun)
    )


def is_participle(lemma: str, words: Dictionary) -> bool:
    """Whether a spelling in -ing is the form of a verb ("riding") rather than an object ("building")."""
    if not lemma.endswith("ing"):
        return False
    stem = lemma.removesuffix("ing")
    bases = {stem, stem + "e", stem[:-1], words.irregular_verbs.get(lemma, "")} & words.members["verb"]
    most = max((words.counts["verb"][base] for base in bases), default=-1)
    if most < 0 or words.objects[lemma] > 0:
        return False
    return words.counts["noun"][lemma] <= most and not (lemma in words.first_is_object and most < 10)


def derive(words: Dictionary, bases_of: Callable[[str], Iterable[str]]) -> list[str]:
    """The sorted nouns that consist of one word.

    A plural that WordNet also lists as a lemma ("windows", "glasses") is left out where its singular is the more
    frequent noun, so that it is reduced to it.
    """
    unwanted = frozenset(FUNCTION_WORDS.split())
    nouns = {
        lemma
        for lemma in words.members["noun"]
        if lemma.replace("-", "").isalpha()
        and lemma[0].isalpha()
        and (len(lemma) > 2 or lemma in SHORT_NOUNS)
        and lemma not in unwanted
        and is_noun(lemma, words)
        and not is_participle(lemma, words)
    }
    frequency = words.counts["noun"]
    plurals = {lemma for lemma in nouns if any(b in nouns and frequency[b] > frequency[lemma] for b in bases_of(lemma))}
    return sorted(nouns - plurals)


def derive_exceptions(folder: Path, nouns: Iterable[str]) -> list[str]:
    """Lines "form lemma" for WordNet's irregular plurals whose lemma is in the list."""
    known = set(nouns)
    pairs = (entry[:2] for entry in _entries(folder / "noun.exc"))
    return [f"{form} {lemma}" for form, lemma in pairs if lemma in known and form != lemma]


def main() -> None:
    """Write nouns.txt and noun_exceptions.txt beside this file."""
    parser = argparse.ArgumentParser(description="Derive imgdiffd's noun list from a WordNet 3.0 dictionary folder.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    from imgdiffd.method.nouns import regular_bases

    nouns = derive(read_dictionary(folder), regular_bases)
    exceptions = derive_exceptions(folder, nouns)
    (HERE / "nouns.txt").write_text("\n".join(nouns) + "\n", "utf-8")
    (HERE / "noun_exceptions.txt").write_text("\n".join(exceptions) + "\n", "utf-8")
    print(f"{len(nouns)} nouns, {len(exceptions)} irregular plurals")


if __name__ == "__main__":
    main()
