"""The figures of statistics as rows of text, which the terminal and the page show alike."""

from imgdiffd.errors import counted
from imgdiffd.statistics.report import (
    PAPER_CATEGORIES,
    PAPER_NAMES,
    PAPER_OBJECTS365,
    PAPER_PAIRS,
    PAPER_SAMPLES,
    Count,
    KindStatistics,
    Statistics,
    WordClass,
)

UNKNOWN_ORDER = (
    "which object was replaced is not in this dataset: pairs are left → right; the database has replaced → replacing"
)


def number(value: float | None) -> str:
    """A whole number with its thousands apart; an en dash where there is none."""
    return "–" if value is None else f"{value:,.0f}"


def share(part: int, whole: int) -> str:
    """A share in percent; an en dash of nothing."""
    return f"{100 * part / whole:.2f} %" if whole else "–"


def diversity_rows(kind: KindStatistics, ordered: bool) -> list[tuple[str, str, str, str]]:
    """What is counted, the count, the count rarefied, and the paper's: rows for a table."""
    found = kind.diversity
    pairs = "pairs replaced → replacing" if ordered else "pairs left → right"
    paper = f"{PAPER_OBJECTS365:,} of {PAPER_NAMES:,} = {share(PAPER_OBJECTS365, PAPER_NAMES)}"
    ours = f"{found.objects365:,} of {found.names:,} = {share(found.objects365, found.names)}"
    paired = bool(kind.words)
    rows = [
        ("samples", number(kind.samples), "", number(PAPER_SAMPLES) if paired else ""),
        ("categories", *_both(found.categories), number(PAPER_CATEGORIES) if paired else ""),
        ("names that are in Objects365", ours, "", paper if paired else ""),
        ("captions without a noun", number(found.nameless), "", ""),
        ("samples with the words of an earlier one", *_both(kind.repeats.exact), ""),
        ("… with its content words, in any order", *_both(kind.repeats.near), ""),
    ]
    if paired:
        rows[2:2] = [
            (pairs, *_both(found.pairs), number(PAPER_PAIRS)),
            ("pairs in either order", *_both(found.unordered_pairs), ""),
            ("samples whose captions name the same object", number(found.same_name), "", ""),
        ]
    if kind.repeated_captions is not None:
        rows.append((f"repeated among {kind.captions:,} original captions", *_both(kind.repeated_captions), ""))
    if (images := kind.images) is not None:
        what = f"pairs of images much like another one, of {images.compared:,} drawn"
        rows.append((what, number(images.near), "", f"{images.unreadable:,} unreadable" if images.unreadable else ""))
    return rows


def _both(count: Count) -> tuple[str, str]:
    return number(count.count), number(count.rarefied)


def word_row(words: WordClass) -> tuple[str, str, str, str, str, str]:
    """A class of words: of how many samples both captions have one, in how many these differ, the share; one, none."""
    differ = share(words.differ, words.both)
    return words.name, number(words.both), number(words.differ), differ, number(words.one), number(words.none)


def notes(found: Statistics, kind: KindStatistics) -> list[str]:
    """What must be known to read the figures of a kind, a sentence each."""
    said = [f"{law[0].upper()}{law[1:]}." for law in kind.laws]
    if kind.words and not found.ordered:
        said.append(f"{UNKNOWN_ORDER[0].upper()}{UNKNOWN_ORDER[1:]}.")
    if kind.samples < found.drawn:
        few = counted(kind.samples, "sample")
        said.append(f"Nothing is rarefied to {found.drawn:,}: there are {few}; choose fewer with --rarefy.")
    return said
