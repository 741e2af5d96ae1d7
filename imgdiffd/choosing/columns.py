"""Every stored score as arrays: a table of captions, and tables of what belongs to each caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Table = dict[str, Array]  # columns of one length

# The tables beside that of the captions, whose column `n_<name>` says how many of their rows belong to each caption.
PARTS = ("rewrites", "boxes", "regions", "letters")
SCORE = "score:"  # before a score's key: a column of float64, NaN where the score is missing


@dataclass(frozen=True)
class Columns:
    """All captions and what is stored of them. Rows of the other tables stand in the order of the captions.

    `reason` columns count into `reasons`, whose first is '': not rejected. Scores are float64, NaN where they are
    missing. `letters` holds the captions' UTF-8 bytes, of those with regions.
    """

    items: Table
    rewrites: Table
    boxes: Table
    regions: Table
    letters: Table
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items["item"])

    def starts(self, part: str) -> Array:
        """Where the rows of each caption begin in the table `part`; one more entry for the end."""
        return starts_of(self.items[f"n_{part}"])

    def owners(self, part: str) -> Array:
        """The row of the caption that each row of the table `part` belongs to."""
        counts = self.items[f"n_{part}"]
        return np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    @cached_property
    def box_owners(self) -> Array:
        """`owners` of the boxes, of which there are millions."""
        return self.owners("boxes")

    def code(self, reason: str) -> int:
        """The number of `reason`; -1 where no row has it."""
        return self.reasons.index(reason) if reason in self.reasons else -1

    def take(self, rows: Array) -> "Columns":
        """The captions at `rows`, in that order, with all that belongs to them."""
        parts = {part: take(getattr(self, part), spread(self.starts(part), rows)) for part in PARTS}
        return Columns(take(self.items, rows), **parts, reasons=self.reasons)

    def caption(self, row: int) -> str:
        """The caption at `row`, which must have regions."""
        start, end = self.starts("letters")[row : row + 2]
        return bytes(self.letters["byte"][start:end]).decode()


def scores(table: Table, key: str) -> Array:
    """The column of a score; NaN throughout where no row has it."""
    found = table.get(SCORE + key)
    return np.full(length(table), np.nan) if found is None else found


def length(table: Table) -> int:
    """The number of rows."""
    return len(next(iter(table.values())))


def starts_of(counts: Array) -> Array:
    """The running total before each entry, and the whole total at the end."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def spread(starts: Array, rows: Array) -> Array:
    """The rows of a part that belong to the captions at `rows`, in their order."""
    counts = starts[rows + 1] - starts[rows]
    within = np.arange(counts.sum()) - np.repeat(starts_of(counts)[:-1], counts)
    found: Array = np.repeat(starts[rows], counts) + within
    return found


def take(table: Table, rows: Array) -> Table:
    """These rows of a table."""
    return {name: column[rows] for name, column in table.items()}


def join(parts: Sequence[Columns]) -> Columns:
    """All captions of `parts`, one behind the other. At least one part is needed."""
    reasons = tuple(dict.fromkeys(("", *(reason for part in parts for reason in part.reasons))))
    numbers = {reason: number for number, reason in enumerate(reasons)}
    recoded = [np.array([numbers[reason] for reason in part.reasons], dtype=np.int16) for part in parts]
    tables = {
        name: _stack([_recode(getattr(part, name), codes) for part, codes in zip(parts, recoded, strict=True)])
        for name in ("items", *PARTS)
    }
    return Columns(**tables, reasons=reasons)


def _recode(table: Table, codes: Array) -> Table:
    return {**table, "reason": codes[table["reason"]]} if "reason" in table else table


def _stack(tables: Sequence[Table]) -> Table:
    names = dict.fromkeys(name for table in tables for name in table)
    return {
        name: np.concatenate(
            [scores(table, name[len(SCORE) :]) if name.startswith(SCORE) else table[name] for table in tables]
        )
        for name in names
    }
