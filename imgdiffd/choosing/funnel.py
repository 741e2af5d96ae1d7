"""The funnel of another profile beside today's: what each filter wins and loses, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from imgdiffd.choosing.boxes import BOX_REASONS
from imgdiffd.choosing.columns import Array, Columns
from imgdiffd.choosing.course import SAMPLED, WAITS
from imgdiffd.choosing.gathering import STAGES, STATES
from imgdiffd.choosing.outlook import Outlook
from imgdiffd.job import ItemState
from imgdiffd.pipeline import Stage

CAPTION_STEPS = (
    ("rewritten", Stage.REWRITE, Stage.REWRITE),
    ("pairs painted", Stage.GENERATE, Stage.GENERATE),
    ("pairs alike enough", Stage.COMPARE, Stage.COMPARE),
    ("pairs that look natural", Stage.VET, Stage.VET),
    ("pairs with a region", Stage.LOCATE, Stage.LOCATE),
    ("pairs with a sample", Stage.DESCRIBE, Stage.RENDER),
)
NOT_YET = "not judged"  # why something has not come as far today: it was never asked about
_REJECTED = STATES[ItemState.REJECTED]


@dataclass(frozen=True, slots=True)
class ChoiceStep:
    """How many came this far today, and how many would under the profile.

    `then` are those of which it is certain; `open` wait for an output that is not stored, in this step or before it.
    `won` are those that this step rejects today and would pass, by their reasons today; `lost` those that pass today
    and would be rejected here, by their reasons then.
    """

    name: str
    counts: Literal["captions", "regions"]
    today: int
    then: int
    open: int = 0
    won: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)


class Funnels:
    """Both funnels of the captions `among`."""

    def __init__(self, columns: Columns, found: Outlook, among: Array) -> None:
        self._columns, self._found, self._among = columns, found, among
        items = columns.items
        self._today = items["stage"] + (items["state"] == SAMPLED)
        self._then = found.stage + (found.state == SAMPLED)
        owners = columns.box_owners
        self._boxes = among[owners]
        self._sampled = np.zeros(len(columns), dtype=bool)
        self._sampled[found.regions["item"][found.regions["state"] == SAMPLED]] = True
        self._owners = owners

    def steps(self) -> tuple[ChoiceStep, ...]:
        """All narrowings, those of captions first."""
        count = int(self._among.sum())
        return (
            ChoiceStep("captions", "captions", count, count, 0, {}, {}),
            *(self._narrowing(*step) for step in CAPTION_STEPS if step[1] is not Stage.VET or self._vetted()),
            *self._region_steps(),
        )

    def _vetted(self) -> bool:
        stage, items = STAGES[Stage.VET], self._columns.items
        return bool((items["answered"] | (self._found.stage == stage))[self._among].any())

    def _narrowing(self, name: str, first: Stage, last: Stage) -> ChoiceStep:
        begin, end = STAGES[first], STAGES[last]
        items, found, among = self._columns.items, self._found, self._among
        passes, passed = (self._then > end) & among, (self._today > end) & among
        waits = (found.state == WAITS) & (found.stage <= end) & among
        if last is Stage.RENDER:  # one sample is enough, whatever else of the caption is open
            passes = passes | (self._sampled & among)
            waits &= ~passes
        here = (found.stage >= begin) & (found.stage <= end) & (found.state == _REJECTED)
        was = (items["stage"] >= begin) & (items["stage"] <= end)
        won = passes & was & ~passed
        why = np.where(items["state"] == _REJECTED, items["reason"], -1)
        return ChoiceStep(
            name,
            "captions",
            int(passed.sum()),
            int(passes.sum()),
            int(waits.sum()),
            tally(why[won], self._columns.reasons),
            tally(found.reason[passed & here], found.reasons),
        )

    def _region_steps(self) -> tuple[ChoiceStep, ...]:
        columns, found = self._columns, self._found
        regions = {name: column[self._among[found.regions["item"]]] for name, column in found.regions.items()}
        known = found.stage > STAGES[Stage.LOCATE]  # their boxes are judged under the profile
        located = known | ((found.stage == STAGES[Stage.LOCATE]) & (found.state == _REJECTED))
        chosen = np.zeros(len(self._owners), dtype=bool)
        chosen[found.boxes.chosen] = True
        judged = self._boxes & located[self._owners]
        today = (columns.boxes["reason"] == 0) & self._boxes
        won, lost = judged & chosen & ~today, judged & today & ~chosen
        return (
            ChoiceStep("boxes found", "regions", int(self._boxes.sum()), int(judged.sum()), 0, {}, {}),
            ChoiceStep(
                "regions that differ",
                "regions",
                int(today.sum()),
                int((judged & chosen).sum()),
                0,
                tally(columns.boxes["reason"][won], columns.reasons),
                tally(found.boxes.verdicts[lost], BOX_REASONS),
            ),
            self._described(regions),
            self._samples(regions),
        )

    def _described(self, regions: dict[str, Array]) -> ChoiceStep:
        stored, stage = self._columns.regions, STAGES[Stage.DESCRIBE]
        was = _of(stored["left"], regions["stored"]) > 0
        why = _of(np.where(stored["reason"] > 0, stored["reason"], -1), regions["stored"], -1)
        passes = regions["stage"] > stage
        waits = (regions["stage"] == stage) & (regions["state"] == WAITS)
        here = (regions["stage"] == stage) & (regions["state"] == _REJECTED)
        told = (stored["letters1"] > 0) | (stored["letters2"] > 0)
        won = passes & ~was & _of(told, regions["stored"])
        among = self._among[self._columns.owners("regions")]
        return ChoiceStep(
            "regions described",
            "regions",
            int(((stored["left"] > 0) & among).sum()),
            int(passes.sum()),
            int(waits.sum()),
            tally(why[won], self._columns.reasons),
            tally(regions["reason"][here & was], self._found.reasons),
        )

    def _samples(self, regions: dict[str, Array]) -> ChoiceStep:
        """The bottom line: every sample won, and every sample lost, by whatever filter."""
        columns, stored = self._columns, self._columns.regions
        sampled = regions["state"] == SAMPLED
        waits = regions["state"] == WAITS
        was = _of(stored["sampled"], regions["stored"])
        return ChoiceStep(
            "samples",
            "regions",
            int((stored["sampled"] & self._among[columns.owners("regions")]).sum()),
            int(sampled.sum()),
            int(waits.sum()),
            self._why_not_today(regions, (sampled | waits) & ~was),
            self._why_not_then(regions),
        )

    def _why_not_today(self, regions: dict[str, Array], which: Array) -> dict[str, int]:
        """Why these regions are no samples today: for their own reason, their box's or their pair's."""
        columns = self._columns
        item = regions["item"][which]
        own = _of(columns.regions["reason"], regions["stored"][which])
        box = columns.boxes["reason"][regions["box"][which]]
        pair = np.where(columns.items["state"] == _REJECTED, columns.items["reason"], -1)[item]
        code = np.where(own > 0, own, np.where(box > 0, box, pair))
        return tally(code, columns.reasons)

    def _why_not_then(self, regions: dict[str, Array]) -> dict[str, int]:
        """Why today's samples would be none: for their own reason, their box's or their pair's."""
        columns, found = self._columns, self._found
        owners = columns.owners("regions")
        samples = np.flatnonzero(columns.regions["sampled"] & self._among[owners])
        item = owners[samples]
        box = columns.starts("boxes")[item] + columns.regions["candidate"][samples]
        reached = np.full(len(columns.regions["left"]), -1)
        reached[regions["stored"][regions["stored"] >= 0]] = np.flatnonzero(regions["stored"] >= 0)
        row = reached[samples]
        waiting = (found.state[item] == WAITS) & (found.stage[item] <= STAGES[Stage.LOCATE])
        names = (*found.reasons, *BOX_REASONS)
        code = np.where(
            row >= 0,
            _of(np.where(regions["state"] == _REJECTED, regions["reason"], 0), row),
            np.where(
                (found.boxes.verdicts[box] > 0) & (found.stage[item] >= STAGES[Stage.LOCATE]),
                found.boxes.verdicts[box] + len(found.reasons),
                found.reason[item],
            ),
        )
        return tally(code[(code > 0) & ~waiting], names)


def _of(column: Array, rows: Array, otherwise: int = 0) -> Array:
    """The values at `rows`; `otherwise` at -1."""
    found: Array = np.append(column, column.dtype.type(otherwise))[rows]
    return found


def tally(codes: Array, reasons: Sequence[str]) -> dict[str, int]:
    """How often each reason comes, the most frequent first; what has none is NOT_YET."""
    counts = np.bincount(codes.astype(np.int64) + 1)
    named: dict[str, int] = {}
    for value, number in sorted(enumerate(counts.tolist(), -1), key=lambda each: -each[1]):
        if not number:
            break
        name = reasons[value] if value > 0 else NOT_YET
        named[name] = named.get(name, 0) + number
    return named
