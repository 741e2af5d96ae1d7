"""Bounds for a profile's filters, fitted to the scores of boxes and texts whose ground truth is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from imgdiffd.method.filters import choose_regions, judge_description, judge_pair
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, CLIP_TEXT_COSINE, Candidate, Description
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Bound
from imgdiffd.mini.evaluate import Judged
from imgdiffd.mini.ground_truth import edited, holds_replaced, names, overlap, seen

PRECISION = 0.95  # of what one filter alone keeps
WANTED = 0.97  # of the samples that all filters together keep; what is promised is 0.95 and 0.92
_BAND = (0.02, 0.99)  # quantiles of good pairs


@dataclass(frozen=True, slots=True)
class Labelled:
    """A raw score and whether what it was computed on should pass."""

    score: float
    good: bool


def fit_bound(labelled: Sequence[Labelled], *, keep_above: bool, precision: float = PRECISION) -> float:
    """The bound that keeps the most good scores while at least `precision` of all kept are good.

    Where no bound reaches that precision, it is the one with the largest difference between the shares of good and bad
    kept (Youden's J). Bounds lie midway between neighbouring scores. Raises ValueError without any good score.
    """
    sign = 1.0 if keep_above else -1.0
    ordered = sorted(labelled, key=lambda entry: -sign * entry.score)
    goods = sum(entry.good for entry in ordered)
    if not goods:
        raise ValueError("no good example to fit a bound on")
    bads = max(1, len(ordered) - goods)
    best: tuple[bool, float] = (False, -1.0)
    bound = 0.0
    kept_good = 0
    for kept, entry in enumerate(ordered, 1):
        kept_good += entry.good
        following = ordered[kept].score if kept < len(ordered) else entry.score - sign * 0.05
        if following == entry.score:
            continue
        precise = kept_good / kept >= precision
        merit = kept_good / goods if precise else kept_good / goods - (kept - kept_good) / bads
        if (precise, merit) > best:
            best, bound = (precise, merit), (entry.score + following) / 2
    return bound


def pair_band(items: Sequence[Judged]) -> tuple[float, float]:
    """The band of the cosine that holds all but the most unusual pairs whose edit worked and lost nothing else.

    It is a band and not a fitted bound because nearly all pairs of this world are good; the filter is for the rest, in
    which nothing changed or everything did. Raises ValueError without such a pair.
    """
    scores = [
        item.pair.scores[CLIP_IMAGE_COSINE]
        for item in _sound(items)
        if item.edit
        and CLIP_IMAGE_COSINE in item.pair.scores
        and seen(item.after, item.edit.others) == len(item.edit.others)
    ]
    if not scores:
        raise ValueError("no good pair to take a band from")
    low, high = np.quantile(scores, _BAND)
    return float(low), float(high)


def _sound(items: Sequence[Judged]) -> list[Judged]:
    """Pairs whose edit worked and can be seen: only they tell good boxes and texts from bad ones."""
    return [item for item in items if item.edit and edited(item.before, item.after, item.edit) and all(item.replaced)]


def label_boxes(items: Sequence[Judged]) -> list[Labelled]:
    """Boxes of sound pairs by their crops' cosine.

    Good is an IoU of at least 0.5 with the replaced object of its image; from 0.2 to 0.5 it is neither good nor bad.
    """
    labelled = []
    for item in _sound(items):
        for candidate in item.story.candidates:
            cosine = candidate.scores.get(CLIP_IMAGE_COSINE)
            shared = overlap(candidate.box, item.instances[candidate.image - 1])
            if cosine is not None and (shared >= 0.5 or shared < 0.2):
                labelled.append(Labelled(cosine, shared >= 0.5))
    return labelled


def label_texts(items: Sequence[Judged]) -> list[Labelled]:
    """Region captions of sound pairs by the cosine of the two texts; good are those that each name their own object."""
    return [
        Labelled(
            region.scores[CLIP_TEXT_COSINE],
            item.edit is not None and names(region.text1, item.edit.old[0]) and names(region.text2, item.edit.new[0]),
        )
        for item in _sound(items)
        for region in item.story.regions
        if CLIP_TEXT_COSINE in region.scores
    ]


def fit_jointly(items: Sequence[Judged], profile: Profile) -> Profile:
    """`profile` with the bounds of both BLIP filters that keep most captions while `WANTED` of the samples are right.

    Right means that the box holds the replaced object and both captions name the right noun. The two are fitted
    together, since each only has to stop what the other lets through. Raises ValueError where no bounds suffice.
    """
    best: tuple[int, Profile] | None = None
    for noun, match in product(np.arange(0.05, 0.85, 0.05), np.arange(0.3, 0.95, 0.05)):
        trial = profile.model_copy(
            update={
                "locate": profile.locate.model_copy(update={"noun_above": rounded(float(noun))}),
                "describe": profile.describe.model_copy(update={"match_above": rounded(float(match))}),
            }
        )
        kept = [_kept(item, trial) for item in items]
        right = sum(sum(samples) for samples in kept)
        total = sum(len(samples) for samples in kept)
        captions = sum(bool(samples) for samples in kept)
        if total and right / total >= WANTED and (best is None or captions > best[0]):
            best = (captions, trial)
    if best is None:
        raise ValueError(f"no bounds keep {WANTED:.0%} right samples")
    return best[1]


def _kept(item: Judged, profile: Profile) -> list[bool]:
    """For each sample that `profile` would keep of an item whose every box was scored: whether it is right."""
    if item.edit is None or not judge_pair(item.pair.scores, profile.pair).passed:
        return []
    candidates = [Candidate(entry.image, entry.box, dict(entry.scores)) for entry in item.story.candidates]
    chosen = choose_regions(candidates, profile.locate, item.pair.width, item.pair.height).regions
    described = {(region.image, region.box): region for region in item.story.regions}
    results = []
    for region in chosen:
        texts = described.get((region.image, region.box))
        if texts is None:
            continue
        description = Description(region.index, texts.text1, texts.text2, dict(texts.scores))
        if judge_description(description, profile.describe).passed:
            named = names(texts.text1, item.edit.old[0]) and names(texts.text2, item.edit.new[0])
            results.append(named and holds_replaced(region.box, region.image, item.instances))
    return results


def rounded(value: float) -> Bound:
    """The bound at `value`, with the digits that a profile's file shows."""
    return Bound(value=round(value, 3))
