"""From the boxes chosen under a profile to samples, by the texts and scores that are stored of them."""

import numpy as np

from imgdiffd.choosing.boxes import BoxChoice, is_above, is_below, ranks
from imgdiffd.choosing.columns import Array, Columns, Table, scores, spread
from imgdiffd.choosing.course import SAMPLED, Course
from imgdiffd.choosing.gathering import Reasons
from imgdiffd.choosing.reusing import Reusable
from imgdiffd.method.filters import left_image
from imgdiffd.method.messages import CLIP_TEXT_COSINE, YES_PROBABILITY, match_key
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Natural
from imgdiffd.pipeline import CAPTION_STAGES, Stage


class _Regions(Course):
    """The chosen boxes of the captions that got there, with the stored regions of the same boxes."""

    def __init__(self, columns: Columns, boxes: BoxChoice, among: Array, reasons: Reasons) -> None:
        owners = columns.box_owners
        self.box = boxes.chosen[among[owners[boxes.chosen]]]
        super().__init__(len(self.box), reasons)
        self.item = owners[self.box]
        self.stored = _stored(columns, self.item, self.box)
        self.number = ranks(self.item)
        self._table = columns.regions

    def column(self, name: str) -> Array:
        """A column of the stored regions: 0 or false where there is none."""
        column = self._table[name]
        return np.append(column, column.dtype.type(0))[self.stored]

    def score(self, key: str) -> Array:
        """A score of the stored regions: NaN where there is none."""
        return np.append(scores(self._table, key), np.nan)[self.stored]


def _stored(columns: Columns, item: Array, chosen: Array) -> Array:
    """The row of the last stored region with the same box as each of the boxes `chosen`, of the same pair; or -1."""
    starts = columns.starts("regions")
    rows = spread(starts, item)
    which = np.repeat(np.arange(len(item)), starts[item + 1] - starts[item])
    box = columns.boxes["box"]
    places = columns.starts("boxes")[item[which]] + columns.regions["candidate"][rows]
    equal = (box[places] == box[chosen[which]]).all(axis=1)
    found = np.full(len(chosen), -1)
    found[which[equal]] = rows[equal]
    return found


def judge_regions(
    columns: Columns, profile: Profile, boxes: BoxChoice, same: Reusable, among: Array, reasons: Reasons
) -> Table:
    """The regions of the captions `among`, with what becomes of each."""
    regions = _Regions(columns, boxes, among, reasons)
    usable = {stage: same[stage][regions.item] for stage in CAPTION_STAGES}
    regions.wait(Stage.DESCRIBE, ~usable[Stage.DESCRIBE])
    _describe(regions, profile)
    moved = _changes_sides(regions, columns, profile)
    regions.wait(Stage.CONTRAST, ~usable[Stage.CONTRAST] | ~regions.column("contrasted") | moved)
    regions.reject(Stage.CONTRAST, regions.column("blank"), "difference_empty")
    if Stage.SCREEN not in profile.skipped_stages:
        regions.wait(Stage.SCREEN, ~usable[Stage.SCREEN] | ~regions.column("screened"))
        _screen(regions, profile.natural)
    regions.wait(Stage.RENDER, ~usable[Stage.RENDER] | ~regions.column("sampled"))
    regions.stop(Stage.RENDER, regions.going, SAMPLED)
    names = ("item", "box", "number", "stored", "stage", "state", "reason")
    return {name: getattr(regions, name) for name in names}


def _describe(regions: _Regions, profile: Profile) -> None:
    """What `filters.judge_description` says of every region; a score that is not there is yet to be made."""
    describe = profile.describe
    regions.wait(Stage.DESCRIBE, (regions.column("letters1") == 0) & (regions.column("letters2") == 0))
    regions.reject(Stage.DESCRIBE, ~(regions.column("said1") & regions.column("said2")), "description_empty")
    cosine = regions.score(CLIP_TEXT_COSINE)
    regions.wait(Stage.DESCRIBE, np.isnan(cosine))
    too_similar = ~is_below(cosine, describe.text_cosine_below)
    regions.reject(Stage.DESCRIBE, too_similar, "descriptions_too_similar")
    matches = [regions.score(match_key(describe.match_kind, side)) for side in (1, 2)]
    regions.wait(Stage.DESCRIBE, np.isnan(matches[0]) | np.isnan(matches[1]))
    low = ~(is_above(matches[0], describe.match_above) & is_above(matches[1], describe.match_above))
    regions.reject(Stage.DESCRIBE, low, "description_mismatch")


def _changes_sides(regions: _Regions, columns: Columns, profile: Profile) -> Array:
    """Whether another image stands on the left now: sides are drawn by a region's number, which may have changed."""
    moved = np.zeros(len(regions.item), dtype=bool)
    if profile.contrast.sides == "original_left":
        return moved
    number, left = regions.column("number"), regions.column("left")
    for row in np.flatnonzero(regions.going & (left > 0) & (number != regions.number)).tolist():
        item = int(regions.item[row])
        attempt = int(columns.items["attempt"][item])
        moved[row] = left_image(profile, columns.caption(item), attempt, int(regions.number[row])) != left[row]
    return moved


def _screen(regions: _Regions, natural: Natural) -> None:
    """What `filters.judge_natural` says of every sample; databases before version 7 have no answers."""
    answer, score = regions.column("answer"), regions.score(YES_PROBABILITY)
    regions.reject(Stage.SCREEN, np.isnan(score), "score_missing")
    regions.reject(Stage.SCREEN, answer < 0, "answer_unclear")
    yes = answer == 1 if natural.rule == "answer" else is_above(score, natural.yes_above)
    regions.reject(Stage.SCREEN, ~yes, "unnatural")
