"""The filters of object replacement (paper, sections 3.1–3.3): from scores and a profile to verdicts with reasons.

A score that is missing never passes a filter: that is a reason of its own.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from imgdiffd.method.messages import (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    PREVIEW_COSINE,
    YES_PROBABILITY,
    Box,
    Candidate,
    Description,
    Difference,
    match_key,
    noun_key,
)
from imgdiffd.method.overlap import suppress_overlaps
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Abort, Describe, Locate, Natural, Pair
from imgdiffd.pipeline import seed_of

# Why a pair is rejected on either side of the similarity gate: for its images or, half-painted, for its preview.
TOO_DIFFERENT = ("pair_too_different", "preview_too_different")
TOO_SIMILAR = ("pair_too_similar", "preview_too_similar")

_YES_OR_NO = re.compile(r"[\W_]*(yes|no)[\W_]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something passes: `reason` is None, else a short code; `detail` holds the numbers for people."""

    reason: str | None = None
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether no filter rejected it."""
        return self.reason is None


PASSED = Verdict()


@dataclass(frozen=True, slots=True)
class Region:
    """A candidate that passed. `index` counts from 0 in the order of the overlap filter, in which the most different
    box comes first unless the profile says otherwise; `candidate` is its own index.
    """

    index: int
    candidate: int
    image: int
    box: Box
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RegionChoice:
    """The regions kept, one verdict per candidate in the candidates' order, and the pair's verdict."""

    regions: tuple[Region, ...]
    verdicts: tuple[Verdict, ...]
    verdict: Verdict


def _present(score: float | None) -> TypeGuard[float]:
    return score is not None and not math.isnan(score)


def _missing(kind: str) -> Verdict:
    return Verdict("score_missing", kind)


def finishes_anyway(profile: Profile, caption: str, attempt: int) -> bool:
    """Whether this pair is one of the few that are finished whatever their preview says.

    Their final scores are how a preview's threshold is held to what it promised.
    """
    return seed_of(profile.seed, caption, attempt, "abort") < profile.generate.abort.finished * 2**63


def judge_preview(score: float | None, abort: Abort, *, finishes: bool) -> Verdict:
    """Whether a pair is painted to its end, by the CLIP cosine of its preview; `finishes` as `finishes_anyway` says.

    A pair is given up only for a score that lies beyond a threshold: one without a score goes on.
    """
    if abort.mode != "on" or finishes or not _present(score):
        return PASSED
    if abort.below is not None and score < abort.below:
        return Verdict("preview_too_different", f"{PREVIEW_COSINE} {score:.4f}, wanted at least {abort.below}")
    if abort.above is not None and score > abort.above:
        return Verdict("preview_too_similar", f"{PREVIEW_COSINE} {score:.4f}, wanted at most {abort.above}")
    return PASSED


def judge_pair(scores: Mapping[str, float], pair: Pair) -> Verdict:
    """The image-similarity filter (IS): similar enough to be an edit, not so similar that nothing changed."""
    score = scores.get(CLIP_IMAGE_COSINE)
    if not _present(score):
        return _missing(CLIP_IMAGE_COSINE)
    value = score if pair.decimals is None else round(score, pair.decimals)
    if not pair.above.above(value):
        return Verdict("pair_too_different", f"{CLIP_IMAGE_COSINE} {score:.4f}, wanted above {pair.above.value}")
    if not pair.below.below(value):
        return Verdict("pair_too_similar", f"{CLIP_IMAGE_COSINE} {score:.4f}, wanted below {pair.below.value}")
    return PASSED


def says_yes(answer: str) -> bool | None:
    """True for a bare yes, False for a bare no, in any case and punctuation; None for all else, even "not"."""
    found = _YES_OR_NO.fullmatch(answer)
    return found[1].lower() == "yes" if found else None


def judge_natural(answer: str, scores: Mapping[str, float], natural: Natural) -> Verdict:
    """The natural-image filter (the authors' scripts, not the paper): the pair must look reasonable to the judge."""
    said, score = says_yes(answer), scores.get(YES_PROBABILITY)
    if not _present(score):
        return _missing(YES_PROBABILITY)
    if said is None:
        return Verdict("answer_unclear", f"wanted yes or no, got {answer!r}")
    if said if natural.rule == "answer" else natural.yes_above.above(score):
        return PASSED
    wanted = "wanted yes" if natural.rule == "answer" else f"wanted above {natural.yes_above.value}"
    return Verdict("unnatural", f"answer {answer!r}, {YES_PROBABILITY} {score:.4f}, {wanted}")


def judge_area(box: Box, width: int, height: int, locate: Locate) -> Verdict:
    """The size limits of a box in pixels, as fractions of the image; a box without a pixel is `box_degenerate`."""
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return Verdict("box_degenerate", f"{x2 - x1}x{y2 - y1} px")
    share = (x2 - x1) * (y2 - y1) / (width * height)
    if share < locate.min_area:
        return Verdict("box_too_small", f"{share:.5f} of the image, wanted {locate.min_area}")
    if share > locate.max_area:
        return Verdict("box_too_large", f"{share:.5f} of the image, wanted {locate.max_area}")
    return PASSED


def judge_crops(scores: Mapping[str, float], locate: Locate) -> Verdict:
    """The crop-difference filter: the two images must differ inside the box."""
    score = scores.get(CLIP_IMAGE_COSINE)
    if not _present(score):
        return _missing(CLIP_IMAGE_COSINE)
    if not locate.crop_cosine_below.below(score):
        detail = f"{CLIP_IMAGE_COSINE} {score:.4f}, wanted below {locate.crop_cosine_below.value}"
        return Verdict("crops_too_similar", detail)
    return PASSED


def judge_nouns(scores: Mapping[str, float], locate: Locate) -> Verdict:
    """BITM: image 1's crop holds caption 1's noun, image 2's holds caption 2's; one side or both, by the profile.

    A caption without a changed noun has no score on its side: under `any` the other side decides.
    """
    keys = [noun_key(locate.noun_kind, side) for side in (1, 2)]
    sides = [scores[key] for key in keys if _present(scores.get(key))]
    if not sides or (locate.noun_rule == "both" and len(sides) < 2):
        return _missing(" and ".join(key for key in keys if not _present(scores.get(key))))
    matches = [locate.noun_above.above(score) for score in sides]
    if any(matches) if locate.noun_rule == "any" else all(matches):
        return PASSED
    values = ", ".join(f"{score:.4f}" for score in sides)
    return Verdict("no_object_in_box", f"{locate.noun_kind} {values}, wanted above {locate.noun_above.value}")


def judge_box(candidate: Candidate, locate: Locate, width: int, height: int) -> Verdict:
    """The tests of a box alone: its size unless that is judged last, the difference of its crops, and its nouns."""
    verdict = judge_area(candidate.box, width, height, locate)
    if verdict.passed or (locate.area_test == "last" and verdict.reason != "box_degenerate"):
        verdict = judge_crops(candidate.scores, locate)
    return judge_nouns(candidate.scores, locate) if verdict.passed else verdict


def choose_regions(candidates: Sequence[Candidate], locate: Locate, width: int, height: int) -> RegionChoice:
    """Choose, of all boxes that the segmenter found, the few worth describing (paper, section 3.2).

    Size, crop difference and noun are tests of each box alone; overlap and the limits compare those that passed.
    """
    verdicts = [judge_box(candidate, locate, width, height) for candidate in candidates]
    passed = [index for index, verdict in enumerate(verdicts) if verdict.passed]
    by_difference = locate.overlap_keeps == "most_different"
    kept = suppress_overlaps(
        [candidates[index].box for index in passed],
        [candidates[index].scores[CLIP_IMAGE_COSINE] if by_difference else 0.0 for index in passed],
        locate.overlap_iou,
    )
    chosen = [passed[index] for index in kept]
    which = "more_different" if by_difference else "earlier"
    for index in set(passed) - set(chosen):
        verdicts[index] = Verdict(f"overlaps_{which}_box", f"IoU above {locate.overlap_iou.value}")
    chosen = _limited(chosen, locate.overlap_limit, "beyond_overlap_limit", verdicts)
    if locate.area_test == "last":
        for index in chosen:
            verdicts[index] = judge_area(candidates[index].box, width, height, locate)
        chosen = [index for index in chosen if verdicts[index].passed]
    chosen = _limited(chosen, locate.regions, "beyond_region_limit", verdicts)
    regions = tuple(
        Region(rank, index, candidates[index].image, candidates[index].box, candidates[index].scores)
        for rank, index in enumerate(chosen)
    )
    return RegionChoice(regions, tuple(verdicts), PASSED if regions else _why_no_region(verdicts))


def _limited(chosen: list[int], limit: int, reason: str, verdicts: list[Verdict]) -> list[int]:
    """The first `limit` of `chosen`, all where it is 0; the others get their verdict."""
    if not limit:
        return chosen
    for index in chosen[limit:]:
        verdicts[index] = Verdict(reason, f"at most {limit} a pair")
    return chosen[:limit]


def _why_no_region(verdicts: Sequence[Verdict]) -> Verdict:
    if not verdicts:
        return Verdict("no_boxes", "the segmenter found nothing in either image")
    reasons = [verdict.reason or "" for verdict in verdicts]
    counts = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
    return Verdict("no_region", ", ".join(f"{reason} {count}" for reason, count in counts.items()))


def judge_texts(scores: Mapping[str, float], describe: Describe) -> Verdict:
    """CS: the two region captions must name different objects."""
    score = scores.get(CLIP_TEXT_COSINE)
    if not _present(score):
        return _missing(CLIP_TEXT_COSINE)
    if not describe.text_cosine_below.below(score):
        detail = f"{CLIP_TEXT_COSINE} {score:.4f}, wanted below {describe.text_cosine_below.value}"
        return Verdict("descriptions_too_similar", detail)
    return PASSED


def judge_matches(scores: Mapping[str, float], describe: Describe) -> Verdict:
    """CITM: each region caption must match its own image's crop."""
    for side in (1, 2):
        key = match_key(describe.match_kind, side)
        score = scores.get(key)
        if not _present(score):
            return _missing(key)
        if not describe.match_above.above(score):
            return Verdict("description_mismatch", f"{key} {score:.4f}, wanted above {describe.match_above.value}")
    return PASSED


def judge_description(description: Description, describe: Describe) -> Verdict:
    """Whether a region passes: neither caption is empty, they differ (CS), and each matches its crop (CITM)."""
    if not description.text1.strip() or not description.text2.strip():
        return Verdict("description_empty")
    verdict = judge_texts(description.scores, describe)
    return judge_matches(description.scores, describe) if verdict.passed else verdict


def judge_difference(difference: Difference) -> Verdict:
    """A difference caption must not be empty."""
    return PASSED if difference.text.strip() else Verdict("difference_empty")


def summarise(verdicts: Iterable[Verdict]) -> Verdict:
    """An item's verdict from those of its regions: passed if any passed, else the most frequent reason."""
    reasons: dict[str, int] = {}
    for verdict in verdicts:
        if verdict.reason is None:
            return PASSED
        reasons[verdict.reason] = reasons.get(verdict.reason, 0) + 1
    if not reasons:
        return Verdict("no_region")
    first = max(reasons, key=lambda reason: reasons[reason])
    return Verdict(first, ", ".join(f"{reason} {count}" for reason, count in reasons.items()))


def left_image(profile: Profile, caption: str, attempt: int, index: int) -> int:
    """Which image (1 the original, 2 the edit) stands on the left of region `index`'s sample."""
    if profile.contrast.sides == "original_left":
        return 1
    return 1 + (seed_of(profile.seed, caption, attempt, f"sides:{index}") & 1)
