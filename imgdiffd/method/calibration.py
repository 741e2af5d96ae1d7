"""Thresholds for early abort: what previews may decide without losing more kept pairs than the profile allows."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from imgdiffd.method.filters import finishes_anyway
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Abort

CERTAINTY = 0.95  # that a threshold loses no more than `loss`
WORTHWHILE = 0.01  # the share of pairs that a side must give up: one that gives up fewer only loses kept ones
FALSE_ALARM_EVERY = 100_000  # kept pairs, on average at least, between false alarms of a side's drift test
DRIFTED_ODDS = 4.0  # what the drift test looks for: the odds of losing a kept pair have grown by this factor


@dataclass(frozen=True, slots=True)
class Preview:
    """A pair that was painted to the end whatever its preview said: the preview's score, and what its gate said."""

    score: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Side:
    """What is known of one side's threshold.

    `threshold` is None where none is in force: `kept`, the kept pairs seen since the last drift, are fewer than are
    needed, or it would give up too few pairs. Of `fitted` kept pairs, `lost` lie beyond it; so does the share
    `given_up` of all pairs. `drifts` counts how often a threshold was withdrawn.
    """

    threshold: float | None
    kept: int
    fitted: int = 0
    lost: int = 0
    given_up: float = 0.0
    drifts: int = 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Both sides' thresholds from `pairs`, of which the gate kept `kept`. `needed` kept pairs make the bound hold."""

    pairs: int
    kept: int
    needed: int
    below: Side
    above: Side

    @property
    def given_up(self) -> float:
        """The share of pairs that the thresholds in force give up."""
        return sum(side.given_up for side in (self.below, self.above) if side.threshold is not None)


def fingerprint(profile: Profile, bundle: str) -> bytes:
    """What previews depend on: profiles of one fingerprint share a calibration. 16 bytes.

    These are the prompts, the painting and the gate of a pair, the step of the preview, and the models of `bundle`;
    not the seed, nor what the thresholds are and whether they are in force. Keys that have their defaults are left out,
    so that keys which a later version adds change nothing.
    """
    generate = profile.generate.model_dump(mode="json", exclude={"abort"}, exclude_defaults=True)
    rewrite, pair = (each.model_dump(mode="json", exclude_defaults=True) for each in (profile.rewrite, profile.pair))
    parts = [bundle, rewrite, generate, pair, preview_at(profile)]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).digest()


def preview_at(profile: Profile) -> float:
    """The share of the steps after which previews are made: by default where the self-attention's injection ends."""
    at = profile.generate.abort.at
    return profile.generate.self_injection if at is None else at


def is_counted(profile: Profile, caption: str, attempt: int) -> bool:
    """Whether a finished pair was finished whatever its preview said, so that `calibrate` may count it."""
    abort = profile.generate.abort
    in_force = abort.mode == "on" and (abort.below is not None or abort.above is not None)
    return not in_force or finishes_anyway(profile, caption, attempt)


def takes_thresholds(profile: Profile) -> bool:
    """Whether a job's thresholds come from the calibration at its admission: none is written, and they are wanted."""
    abort = profile.generate.abort
    return abort.mode == "on" and abort.below is None and abort.above is None


def with_thresholds(profile: Profile, found: Calibration) -> Profile:
    """The profile to record with a job of `profile` that takes its thresholds from `found`.

    Where no side has one it is in shadow mode, so that a repeat under the recorded profile gives nothing up either.
    """
    below, above = (_cosine(side.threshold) for side in (found.below, found.above))
    if (below is None and above is None) or (below is not None and above is not None and below > above):
        return without_thresholds(profile)
    return _with_abort(profile, {"below": below, "above": above})


def without_thresholds(profile: Profile) -> Profile:
    """The profile in shadow mode and without thresholds: whatever thresholds one is admitted with, this is the same."""
    return _with_abort(profile, {"mode": "shadow", "below": None, "above": None})


def _with_abort(profile: Profile, update: dict[str, object]) -> Profile:
    abort = Abort.model_validate({**profile.generate.abort.model_dump(), **update})
    return profile.model_copy(update={"generate": profile.generate.model_copy(update={"abort": abort})})


def _cosine(threshold: float | None) -> float | None:
    return None if threshold is None else min(1.0, max(-1.0, threshold))  # rounding may carry a cosine beyond


def least_kept(loss: float) -> int:
    """The fewest kept pairs of which none may lie beyond a threshold for its bound to hold: 598 for 0.5 %."""
    if not 0 < loss < 1:
        raise ValueError(f"loss must lie between 0 and 1, not {loss}")
    return math.ceil(math.log(1 - CERTAINTY) / math.log1p(-loss))


def most_lost(kept: int, loss: float) -> int | None:
    """How many of `kept` pairs may lie beyond a threshold so that it loses at most `loss` with 95 % certainty.

    The most whose exact upper bound (Clopper-Pearson, one-sided) is at most `loss`. That is also the order statistic
    to take: the score with k others beyond it has more than `loss` beyond it with the probability that a binomial
    count is at most k, whatever the scores' distribution. None where `kept` is too few for any.
    """
    below, lost = 0.0, -1
    for count in range(kept + 1):
        below += _binomial(count, kept, loss)
        if below > 1 - CERTAINTY:
            break
        lost = count
    return None if lost < 0 else lost


def _binomial(count: int, total: int, share: float) -> float:
    ways = math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)
    return math.exp(ways + count * math.log(share) + (total - count) * math.log1p(-share))


def upper_bound(lost: int, kept: int) -> float:
    """The largest share of kept pairs lost, with 95 % certainty, where `lost` of `kept` were (Clopper-Pearson)."""
    if lost >= kept:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        share = (low + high) / 2
        certain = sum(_binomial(count, kept, share) for count in range(lost + 1)) <= 1 - CERTAINTY
        low, high = (low, share) if certain else (share, high)
    return high


def calibrate(previews: Sequence[Preview], loss: float) -> Calibration:
    """Thresholds from previews in the order in which their pairs were finished, each side with its own `loss`.

    Only pairs that were finished whatever their preview said may be among them: any, while no threshold is in force,
    and then those drawn to be finished anyway. So no score is seen more often than another, and nothing is weighed.
    """
    below = _side(previews, loss)
    above = _side([Preview(-each.score, each.kept) for each in previews], loss)
    kept = sum(each.kept for each in previews)
    return Calibration(len(previews), kept, least_kept(loss), below, _turned(above))


def _turned(side: Side) -> Side:
    threshold = None if side.threshold is None else -side.threshold
    return Side(threshold, side.kept, side.fitted, side.lost, side.given_up, side.drifts)


class _Fit:
    """One side's threshold as kept pairs come: fitted, watched, refitted when they have doubled, withdrawn on drift.

    The watch is a Shiryaev-Roberts test on the kept pairs that came after those fitted to. While at most `loss` of
    kept pairs lie beyond the threshold, the statistic's mean grows by at most one a pair, however often one looks:
    that bounds the rate of false alarms. A drift forgets all pairs so far.
    """

    def __init__(self, loss: float) -> None:
        self._loss = loss
        self._needed = least_kept(loss)
        self._statistic = 0.0
        self.kept: list[float] = []
        self.fitted = 0  # twice as many each time: jobs admitted in between get one threshold, and one profile
        self.threshold = -math.inf
        self.lost = 0
        self.drifts = 0

    def add(self, score: float) -> bool:
        """The next kept score; returns whether drift shows with it."""
        if self.fitted and self._drifts(score < self.threshold):
            self.kept, self.fitted, self._statistic = [], 0, 0.0
            self.drifts += 1
            return True
        self.kept.append(score)
        if len(self.kept) == max(2 * self.fitted, self._needed):
            self.fitted = len(self.kept)
            self.threshold = sorted(self.kept)[most_lost(self.fitted, self._loss) or 0]
            self.lost = sum(score < self.threshold for score in self.kept)
        return False

    def _drifts(self, lost: bool) -> bool:
        likelier = (DRIFTED_ODDS if lost else 1.0) / (1 + (DRIFTED_ODDS - 1) * self._loss)
        self._statistic = (1 + self._statistic) * likelier
        return self._statistic >= FALSE_ALARM_EVERY


def _side(previews: Sequence[Preview], loss: float) -> Side:
    """The threshold under which pairs are given up."""
    fit, since = _Fit(loss), 0
    for index, each in enumerate(previews):
        if each.kept and fit.add(each.score):
            since = index + 1
    if not fit.fitted:
        return Side(None, len(fit.kept), drifts=fit.drifts)
    seen = list(_until(previews[since:], fit.fitted))
    given_up = sum(each.score < fit.threshold for each in seen) / len(seen)
    threshold = fit.threshold if given_up >= WORTHWHILE else None
    return Side(threshold, len(fit.kept), fit.fitted, fit.lost, given_up, fit.drifts)


def _until(previews: Iterable[Preview], kept: int) -> Iterator[Preview]:
    """The previews up to the last of `kept` kept ones."""
    for each in previews:
        yield each
        kept -= each.kept
        if not kept:
            return
