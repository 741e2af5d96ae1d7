"""From the boxes chosen under a profile to samples, by the texts and scores that are stored of them."""

import numpy as np

from imgdiffd.choosing.boxes import BoxChoice, is_above, is_below, ranks
from imgdiffd.choosing.columns import Array, Columns, Table, scores
from imgdiffd.choosing.gathering import STAGES, STATES, Reasons
from imgdiffd.choosing.reusing import Usable
from imgdiffd.job import ItemState
from imgdiffd.method.filters import left_image
from imgdiffd.method.messages import CLIP_TEXT_COSINE, YES_PROBABILITY, match_key
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Stage

WAITS, SAMPLED, REJECTED = (STATES[each] for each in (ItemState.READY, ItemState.SAMPLED, ItemState.REJECTED))


class _Regions:
    """The chosen boxes of the captions that got there, each going on until it is stopped for the first time."""

    def __init__(self, columns: Columns, boxes: BoxChoice, among: Array, reasons: Reasons) -> None:
        owners = columns.owners("boxes")
        chosen = boxes.chosen[among[owners[boxes.chosen]]]
        where = np.full(len(owners), -1, dtype=np.int32)
        where[columns.starts("boxes")[columns.owners("regions")] + columns.regions["candidate"]] = np.arange(
            len(columns.regions["candidate"])
        )
        self.item, self.box, self.stored = owners[chosen], chosen, where[chosen]
        self.number = ranks(self.item)
        self.stage = np.full(len(chosen), STAGES[Stage.RENDER], np.int8)
        self.state = np.full(len(chosen), -1, np.int8)
        self.reason = np.zeros(len(chosen), np.int16)
        self._columns, self._reasons = columns, reasons

    def stop(self, stage: Stage, which: Array, state: int, reason: str = "") -> None:
        """Stop those of `which` that still go on."""
        stopped = (self.state < 0) & which
        self.stage[stopped] = STAGES[stage]
        self.state[stopped] = state
        self.reason[stopped] = self._reasons.number(reason)

    def column(self, name: str) -> Array:
        """A column of the stored regions: 0 or false where there is none."""
        column = self._columns.regions[name]
        return (
            np.where(self.stored >= 0, column[self.stored], column.dtype.type(0))
            if len(column)
            else np.zeros(len(self.stored), column.dtype)
        )

    def score(self, key: str) -> Array:
        """A score of the stored regions: NaN where there is none."""
        column = scores(self._columns.regions, key)
        return (
            np.where(self.stored >= 0, column[self.stored], np.nan)
            if len(column)
            else np.full(len(self.stored), np.nan)
        )

    def had(self, *reasons: str) -> Array:
        """Whether a stored region was rejected for one of these reasons."""
        codes = [self._columns.code(reason) for reason in reasons]
        return (self.stored >= 0) & np.isin(self.column("reason"), codes)


def judge_regions(
    columns: Columns, profile: Profile, boxes: BoxChoice, can: Usable, among: Array, reasons: Reasons
) -> Table:
    """The regions of the captions `among`, with what becomes of each."""
    regions = _Regions(columns, boxes, among, reasons)
    _describe(regions, profile, can)
    moved = _changes_sides(regions, columns, profile)
    _contrast(regions, can, moved)
    if Stage.SCREEN not in profile.skipped_stages:
        _screen(regions, profile, can, moved)
    regions.stop(Stage.RENDER, ~can.same[Stage.RENDER][regions.item] | ~regions.column("sampled") | moved, WAITS)
    regions.stop(Stage.RENDER, regions.state < 0, SAMPLED)
    names = ("item", "box", "number", "stored", "stage", "state", "reason")
    return {name: getattr(regions, name) for name in names}


def _describe(regions: _Regions, profile: Profile, can: Usable) -> None:
    """What `filters.judge_description` says of every region."""
    describe, said = profile.describe, (regions.column("said1"), regions.column("said2"))
    described = (regions.stored >= 0) & (can.has[Stage.DESCRIBE][regions.item] | said[0] | said[1])
    regions.stop(Stage.DESCRIBE, ~described | ~can.same[Stage.DESCRIBE][regions.item], WAITS)
    regions.stop(Stage.DESCRIBE, regions.had("description_missing"), REJECTED, "description_missing")
    regions.stop(Stage.DESCRIBE, ~said[0] | ~said[1], REJECTED, "description_empty")
    cosine = regions.score(CLIP_TEXT_COSINE)
    regions.stop(Stage.DESCRIBE, np.isnan(cosine), REJECTED, "score_missing")
    too_similar = ~is_below(cosine, describe.text_cosine_below)
    regions.stop(Stage.DESCRIBE, too_similar, REJECTED, "descriptions_too_similar")
    unscored = can.needed[regions.item] & regions.had("descriptions_too_similar")
    for side in (1, 2):
        score = regions.score(match_key(describe.match_kind, side))
        regions.stop(Stage.DESCRIBE, np.isnan(score) & unscored, WAITS)
        regions.stop(Stage.DESCRIBE, np.isnan(score), REJECTED, "score_missing")
        regions.stop(Stage.DESCRIBE, ~is_above(score, describe.match_above), REJECTED, "description_mismatch")


def _changes_sides(regions: _Regions, columns: Columns, profile: Profile) -> Array:
    """Whether another image stands on the left now: sides are drawn by a region's number, which may have changed."""
    moved = np.zeros(len(regions.item), dtype=bool)
    if profile.contrast.sides == "original_left":
        return moved
    number, left = regions.column("number"), regions.column("left")
    for row in np.flatnonzero((regions.state < 0) & (left > 0) & (number != regions.number)).tolist():
        item = int(regions.item[row])
        attempt = int(columns.items["attempt"][item])
        moved[row] = left_image(profile, columns.caption(item), attempt, int(regions.number[row])) != left[row]
    return moved


def _contrast(regions: _Regions, can: Usable, moved: Array) -> None:
    empty, missing = regions.had("difference_empty"), regions.had("difference_missing")
    there = (regions.column("contrasted") | empty | missing) & can.same[Stage.CONTRAST][regions.item]
    regions.stop(Stage.CONTRAST, ~there | moved, WAITS)
    regions.stop(Stage.CONTRAST, empty, REJECTED, "difference_empty")
    regions.stop(Stage.CONTRAST, missing, REJECTED, "difference_missing")


def _screen(regions: _Regions, profile: Profile, can: Usable, moved: Array) -> None:
    """What `filters.judge_natural` says of every sample; databases before version 7 have no answers."""
    natural, answer, score = profile.natural, regions.column("answer"), regions.score(YES_PROBABILITY)
    missing = regions.had("answer_missing")
    there = (regions.column("screened") | missing) & can.same[Stage.SCREEN][regions.item]
    regions.stop(Stage.SCREEN, ~there | moved, WAITS)
    regions.stop(Stage.SCREEN, missing, REJECTED, "answer_missing")
    regions.stop(Stage.SCREEN, np.isnan(score), REJECTED, "score_missing")
    regions.stop(Stage.SCREEN, answer < 0, REJECTED, "answer_unclear")
    yes = answer == 1 if natural.rule == "answer" else is_above(score, natural.yes_above)
    regions.stop(Stage.SCREEN, ~yes, REJECTED, "unnatural")
