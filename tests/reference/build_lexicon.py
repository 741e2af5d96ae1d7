"""Derives the lexicon of objects by category that `imgdiffd.method.lexicon` replaces names from, out of WordNet 3.0.

Run it with the folder that holds data.noun (Debian: /usr/share/wordnet of the package wordnet-base):
`python -m tests.reference.build_lexicon FOLDER`.

The categories are the paper's (section 11). Each is cut into groups of objects that can stand in one another's place,
by the concepts of WordNet below which their names are. A name is in a group if one of its senses is there, unless the
tagged texts have its other senses far more often; of living things and natural objects it must be the first sense, or
one that a group names. Names replace others only where they are common: the tagged texts have them in that sense, or
COMMON definitions use them. Rare ones are replaced, but never replace; which people
and trees do is a list. Words that mostly
mean something else in a caption are left out, and words that no image can show do not replace. Names of several words
that hold one of these ("teddy bear") are listed without a group, so that their parts are left alone.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imgdiffd.method.nouns import COLOURS, noun_lemma
from tests.reference.build_nouns import HERE
from tests.reference.lexicon_groups import AMBIGUOUS, EVERYDAY, GROUPS, MASS, MASS_GROUPS, SEEN, TREES, UNSUITED

COMMON = 3  # definitions that must use a name where the tagged texts do not have it
LONGEST = 3  # words of a name
OTHER_SENSES = 10  # times as often as the object, and a name is not taken for the object
COMMON_LIVING = 6  # the same of living things, of which there are thousands
LISTED = {"living_thing/adult": SEEN, "living_thing/tree": TREES}  # groups of which these names alone replace
FIRST_SENSE = frozenset({"living_thing", "natural_object"})


@dataclass
class WordNet:
    """What the rules need of WordNet's nouns; a concept is an offset in data.noun."""

    lemmas: dict[str, list[str]] = field(default_factory=dict)  # concept -> its words as written, "_" between parts
    parents: dict[str, list[str]] = field(default_factory=dict)
    children: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    senses: dict[str, list[str]] = field(default_factory=dict)  # lemma -> concepts, the most frequent first
    tagged: Counter[tuple[str, int]] = field(default_factory=Counter)  # lemma and number of sense -> occurrences
    defining: Counter[str] = field(default_factory=Counter)  # lemma -> definitions that use it

    def concept(self, sense: str) -> str:
        """The concept of a sense such as "bowl.3"."""
        lemma, _, number = sense.rpartition(".")
        return self.senses[lemma][int(number) - 1]

    def below(self, concept: str) -> Iterator[str]:
        """The concept and all that it is more general than."""
        yield concept
        for child in self.children[concept]:
            yield from self.below(child)


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith(" "):  # the licence
            yield line


def read_wordnet(folder: Path) -> WordNet:
    """Read nouns, their senses, the tag counts and all definitions."""
    found = WordNet()
    for line in _lines(folder / "data.noun"):
        entry = line.partition(" | ")[0].split()
        words = int(entry[3], 16)
        found.lemmas[entry[0]] = entry[4 : 4 + 2 * words : 2]
        pointers = entry[5 + 2 * words :]
        found.parents[entry[0]] = [pointers[at + 1] for at in range(0, len(pointers), 4) if pointers[at] == "@"]
        for parent in found.parents[entry[0]]:
            found.children[parent].append(entry[0])
    for line in _lines(folder / "index.noun"):
        entry = line.split()
        found.senses[entry[0]] = entry[-int(entry[2]) :]
    for line in _lines(folder / "cntlist.rev"):
        key, number, count = line.split()
        lemma, _, kind = key.partition("%")
        if kind.startswith("1"):
            found.tagged[lemma, int(number)] += int(count)
    for part in ("noun", "verb", "adj", "adv"):
        for line in _lines(folder / f"data.{part}"):
            found.defining.update(_used(line.partition(" | ")[2], found.senses))
    return found


def _used(definition: str, senses: Iterable[str]) -> set[str]:
    """The lemmas that a definition and its examples use; a plural counts as its singular."""
    words = re.findall(r"[a-z]+(?:[-'][a-z]+)*", definition.lower())
    used = {lemma for word in words if (lemma := noun_lemma(word)) is not None}
    for length in range(2, LONGEST + 1):
        for start in range(len(words) - length + 1):
            *before, last = words[start : start + length]
            lemma = "_".join((*before, noun_lemma(last) or last))
            if lemma in senses:
                used.add(lemma)
    return used


@dataclass(frozen=True)
class Entry:
    """A concept of a group that has names: those that replace, those that are only replaced, and concepts below it."""

    names: list[str]
    rare: list[str]
    below: list["Entry"]


def group_concepts(words: WordNet) -> dict[str, str]:
    """The group of each concept that is in one."""
    found: dict[str, str] = {}
    for group, senses in GROUPS.items():
        left_out = {c for s in senses.split() if s.startswith("-") for c in words.below(words.concept(s[1:]))}
        for sense in senses.split():
            if not sense.startswith("-"):
                concepts = [words.concept(sense[1:])] if sense.startswith("=") else words.below(words.concept(sense))
                for concept in concepts:
                    if concept not in left_out:
                        found.setdefault(concept, group)
    return found


def sense_of(lemma: str, words: WordNet, group_of: Mapping[str, str]) -> str | None:
    """The concept for which a lemma is in the lexicon, if it is."""
    if lemma in AMBIGUOUS or lemma.count("_") >= LONGEST or not re.fullmatch(r"[a-z]+(?:[-_'][a-z]+)*", lemma):
        return None
    if noun_lemma(lemma) not in {lemma, None}:  # "cows"
        return None
    senses = words.senses[lemma]
    objects = {number for number, concept in enumerate(senses, 1) if concept in group_of}
    others = sum(words.tagged[lemma, number] for number in range(1, len(senses) + 1) if number not in objects)
    named = frozenset(" ".join(GROUPS.values()).split())
    for number in sorted(objects):
        concept = senses[number - 1]
        first = group_of[concept].partition("/")[0] not in FIRST_SENSE or number == 1 or f"{lemma}.{number}" in named
        seen = words.tagged[lemma, number]
        if lemma in words.lemmas[concept] and first and others <= OTHER_SENSES * (seen + 1):
            return concept
    return None


def replaces(lemma: str, concept: str, words: WordNet, group: str) -> bool:
    """Whether a name of the lexicon may replace others."""
    if group in LISTED:
        return lemma in LISTED[group]
    number = words.senses[lemma].index(concept) + 1
    least = COMMON_LIVING if group.startswith("living_thing/") else COMMON
    common = words.tagged[lemma, number] >= 1 or words.defining[lemma] >= least or lemma in EVERYDAY
    return common and lemma not in UNSUITED and noun_lemma(lemma.rpartition("_")[2]) is not None


def derive(words: WordNet) -> dict[str, list[Entry]]:
    """The tree of concepts with names of each group."""
    group_of = group_concepts(words)
    names: dict[str, list[str]] = defaultdict(list)
    for lemma in sorted(words.senses):
        if (concept := sense_of(lemma, words, group_of)) is not None:
            names[concept].append(lemma)
    done: set[str] = set()

    def entries(concept: str, group: str) -> list[Entry]:
        if concept in done or group_of.get(concept) != group:
            return []
        done.add(concept)
        children = [] if concept in alone else words.children[concept]
        below = [entry for child in children for entry in entries(child, group)]
        if concept not in names:
            return below
        usual = [name for name in names[concept] if replaces(name, concept, words, group)]
        return [Entry(usual, [name for name in names[concept] if name not in usual], below)]

    tree: dict[str, list[Entry]] = {}
    for group, senses in GROUPS.items():
        wanted = [words.concept(sense.lstrip("=")) for sense in senses.split() if not sense.startswith("-")]
        alone = {words.concept(sense[1:]) for sense in senses.split() if sense.startswith("=")}
        open_to = [concept for concept in wanted if concept not in alone]
        inner = {below for top in open_to for child in words.children[top] for below in words.below(child)}
        tops = [concept for concept in wanted if concept not in inner]
        tree[group] = [entry for concept in tops for entry in entries(concept, group)]
    return tree


def protected(words: WordNet, known: Iterable[str]) -> list[str]:
    """Names of several words that hold one of `known`, but are not in the lexicon: "teddy bear", "bus stop"."""
    parts = set(known)
    return sorted(
        lemma
        for lemma in words.senses
        if 0 < lemma.count("_") < LONGEST
        and lemma not in parts
        and not parts.isdisjoint(lemma.split("_"))
        and lemma.partition("_")[0] not in COLOURS  # a white horse is a horse, and no crest of a wave
    )


def lines(tree: Mapping[str, list[Entry]]) -> Iterator[str]:
    """The file: a group, then a concept a line, below and indented by one more than the concept that it belongs to."""
    for group, entries in tree.items():
        yield f"{group}:"
        for entry in entries:
            yield from _entry_lines(entry, group, 1)


def _entry_lines(entry: Entry, group: str, depth: int) -> Iterator[str]:
    named = [(name, "") for name in entry.names] + [(name, "?") for name in entry.rare]
    told = (
        name.replace("_", " ")
        + mark
        + ("~" if name.rpartition("_")[2] in MASS or name in MASS or group in MASS_GROUPS else "")
        for name, mark in named
    )
    yield " " * depth + ", ".join(told)
    for below in entry.below:
        yield from _entry_lines(below, group, depth + 1)


def _every(entries: Iterable[Entry]) -> Iterator[Entry]:
    for entry in entries:
        yield entry
        yield from _every(entry.below)


def main() -> None:
    """Write lexicon.txt beside the noun list, and print how many names each group has."""
    parser = argparse.ArgumentParser(description="Derive imgdiffd's lexicon from a WordNet 3.0 dictionary folder.")
    parser.add_argument("folder", type=Path)
    words = read_wordnet(parser.parse_args().folder)
    tree = derive(words)
    known = [name for entries in tree.values() for entry in _every(entries) for name in (*entry.names, *entry.rare)]
    kept = [name.replace("_", " ") for name in protected(words, known)]
    (HERE / "lexicon.txt").write_text("\n".join([*lines(tree), "-:", *(f" {name}" for name in kept)]) + "\n", "utf-8")
    for group, entries in tree.items():
        usual = sum(len(entry.names) for entry in _every(entries))
        print(f"{group}: {usual} that replace, {sum(len(entry.rare) for entry in _every(entries))} that do not")
    replacing = sum(len(entry.names) for entries in tree.values() for entry in _every(entries))
    print(f"{len(known)} names, {replacing} of which replace; {len(kept)} names that are left alone")


if __name__ == "__main__":
    main()
