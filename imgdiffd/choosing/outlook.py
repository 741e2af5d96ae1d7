"""What every caption would come to under a profile, from stored scores alone: `method.advance` for all at once."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from imgdiffd.choosing.boxes import BoxChoice, choose_boxes, is_above, is_below, lacking_scores
from imgdiffd.choosing.columns import Array, Columns, Table, scores
from imgdiffd.choosing.course import REJECTED, SAMPLED, WAITS, Course
from imgdiffd.choosing.gathering import STAGES, Reasons
from imgdiffd.choosing.regions import judge_regions
from imgdiffd.choosing.reusing import Reusable
from imgdiffd.method.advance import FIRST_ATTEMPT, NOT_RETRIED
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, PREVIEW_COSINE, YES_PROBABILITY
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Locate, Natural, Pair, Rewrite
from imgdiffd.pipeline import Stage

_BEFORE_LENGTH = ("empty", "truncated", "refusal", "several_lines", "unchanged", "meta_talk")  # in `judge_answer`


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where each caption ends under the profile, or at which stage it waits for an output that is not stored.

    `stage`, `state` and `reason` have an entry for each caption. `boxes` judges all boxes of all pairs, whether their
    pair gets as far as that or not. `regions` are the boxes chosen of pairs that do: `item` and `box` are rows,
    `number` is the region's place in its pair, `stored` the row of the stored region or -1, and `stage`, `state` and
    `reason` are as for captions. Reasons count into `reasons`.
    """

    stage: Array
    state: Array
    reason: Array
    boxes: BoxChoice
    regions: Table
    reasons: tuple[str, ...]

    @property
    def passed_gate(self) -> Array:
        """Whether each caption's pair is alike enough, as far as that is known."""
        return self.stage > STAGES[Stage.COMPARE]


def outlook(
    columns: Columns,
    profile: Profile,
    profile_of: Callable[[int], Profile],
    *,
    jobs: Collection[int] | None = None,
    boxes: BoxChoice | None = None,
) -> Outlook:
    """What every caption would come to under `profile`; `profile_of` gives a group's own.

    It says what `method.replay` says of each. Of captions of other jobs than `jobs`, where these are given, nothing
    counts unless they have the profile itself. `boxes` may give the choice of `choose_boxes` under an equal
    `profile.locate`, which takes most of the time.
    """
    same = Reusable(columns, profile, profile_of, jobs)
    course = Course(len(columns), Reasons(columns.reasons))
    _rewrite(columns, profile.rewrite, same, course)
    _generate(columns, profile, same, course)
    _compare(columns, profile.pair, course)
    if Stage.VET not in profile.skipped_stages:
        course.wait(Stage.VET, ~same[Stage.VET] | ~columns.items["answered"])
        _vet(columns, profile.natural, course)
    boxes = boxes or choose_boxes(columns, profile.locate)
    course.wait(Stage.LOCATE, ~same[Stage.LOCATE] | ~columns.items["located"])
    _locate(columns, profile.locate, boxes, course)
    regions = judge_regions(columns, profile, boxes, same, course.going, course.reasons)
    _after_regions(regions, course)
    return Outlook(course.stage, course.state, course.reason, boxes, regions, course.reasons.all)


def _rewrite(columns: Columns, rewrite: Rewrite, same: Reusable, course: Course) -> None:
    table, owners = columns.rewrites, columns.owners("rewrites")
    reasons, limit = course.reasons, rewrite.max_caption_tokens
    numbers = table["attempt"]
    judged = table["reason"].copy()
    earlier = np.isin(judged, [reasons.number(reason) for reason in _BEFORE_LENGTH])
    judged[(table["answer_tokens"] > limit) & ~earlier] = reasons.number("too_long")
    judged[table["caption_tokens"] > limit] = reasons.number("caption_too_long")
    unasked = ~table["asked"] & (table["caption_tokens"] <= limit)
    counted = (numbers < FIRST_ATTEMPT + rewrite.attempts) & ~unasked
    last, tries = np.zeros((2, len(columns)), dtype=np.int16)
    last[owners[counted]] = judged[counted]
    np.add.at(tries, owners[counted], 1)
    never = np.iinfo(np.int32).max
    first = np.full(len(columns), never)
    accepted = counted & (judged == 0)
    np.minimum.at(first, owners[accepted], numbers[accepted])
    final = np.isin(last, [reasons.number(reason) for reason in NOT_RETRIED])
    found = first < never
    course.wait(Stage.REWRITE, ~same[Stage.REWRITE] | (~found & ~final & (tries < rewrite.attempts)))
    for code in np.unique(last[~found]):
        course.reject(Stage.REWRITE, ~found & (last == code), reasons.all[code])
    course.wait(Stage.GENERATE, first != columns.items["attempt"])  # what is stored is of another rewrite


def _generate(columns: Columns, profile: Profile, same: Reusable, course: Course) -> None:
    abort, score = profile.generate.abort, scores(columns.items, PREVIEW_COSINE)
    course.wait(Stage.GENERATE, ~same[Stage.GENERATE] | (columns.items["width"] == 0))
    if abort.mode == "on":
        judged = same.previews & (columns.items["draw"] >= np.uint64(-int(-abort.finished * 2**63 // 1)))
        for bound, reason, beyond in (
            (abort.below, "preview_too_different", np.less),
            (abort.above, "preview_too_similar", np.greater),
        ):
            if bound is not None:
                course.reject(Stage.GENERATE, judged & beyond(score, bound), reason)
    course.wait(Stage.GENERATE, ~columns.items["painted"])  # it was given up half-painted


def judge_pairs(columns: Columns, pair: Pair) -> tuple[Array, Array]:
    """What `filters.judge_pair` says of every pair with a score: whether it is too different, and too similar."""
    value = scores(columns.items, CLIP_IMAGE_COSINE)
    if pair.decimals is not None:  # numpy rounds another way
        value = np.array([round(each, pair.decimals) for each in value.tolist()], dtype=np.float64)
    different = ~is_above(value, pair.above)
    return different, ~is_below(value, pair.below) & ~different


def _compare(columns: Columns, pair: Pair, course: Course) -> None:
    course.wait(Stage.COMPARE, np.isnan(scores(columns.items, CLIP_IMAGE_COSINE)))
    different, similar = judge_pairs(columns, pair)
    course.reject(Stage.COMPARE, different, "pair_too_different")
    course.reject(Stage.COMPARE, similar, "pair_too_similar")


def _vet(columns: Columns, natural: Natural, course: Course) -> None:
    answer, score = columns.items["answer"], scores(columns.items, YES_PROBABILITY)
    yes = answer == 1 if natural.rule == "answer" else is_above(score, natural.yes_above)
    course.reject(Stage.VET, np.isnan(score), "score_missing")
    course.reject(Stage.VET, answer < 0, "answer_unclear")
    course.reject(Stage.VET, ~yes, "unnatural")


def _locate(columns: Columns, locate: Locate, boxes: BoxChoice, course: Course) -> None:
    owners = columns.box_owners
    unscored, some = np.zeros((2, len(columns)), dtype=bool)
    unscored[owners[lacking_scores(columns, boxes, locate)]] = True
    some[owners[boxes.chosen]] = True
    course.wait(Stage.LOCATE, unscored)
    course.reject(Stage.LOCATE, columns.items["n_boxes"] == 0, "no_boxes")
    course.reject(Stage.LOCATE, ~some, "no_region")


def _after_regions(regions: Table, course: Course) -> None:
    """A caption waits where its first region waits; it ended where its last one did."""
    count, item = len(course.stage), regions["item"]
    waits, last = np.full(count, 99, np.int8), np.full(count, -1, np.int8)
    waiting = regions["state"] == WAITS
    np.minimum.at(waits, item[waiting], regions["stage"][waiting])
    np.maximum.at(last, item, regions["stage"])
    going = course.going
    sampled = np.zeros(count, dtype=bool)
    sampled[item[regions["state"] == SAMPLED]] = True
    course.stage[going] = np.where(waits < 99, waits, last)[going]
    course.state[going] = np.where(waits < 99, WAITS, np.where(sampled, SAMPLED, REJECTED))[going]
    rejected = going & (course.state == REJECTED)
    told = rejected[item] & (regions["stage"] == last[item])
    course.reason[rejected] = _most_frequent(item[told], regions["reason"][told], count)[rejected]


def _most_frequent(owner: Array, reason: Array, count: int) -> Array:
    """The reason that most rows of each owner have, the first of several, as `filters.summarise` says."""
    keys, firsts, numbers = np.unique(owner.astype(np.int64) << 16 | reason, return_index=True, return_counts=True)
    order = np.lexsort((-firsts, numbers))  # of each owner, the one that counts comes last
    found = np.zeros(count, dtype=np.int16)
    found[keys[order] >> 16] = keys[order] & 0xFFFF
    return found
