"""What early abort saves and loses in the miniature world, on pairs that its thresholds were not fitted to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imgdiffd.method.calibration import Preview, calibrate, least_kept, preview_at, upper_bound
from imgdiffd.method.profile import Profile
from imgdiffd.mini.figures import Figure

GATE = 0.925  # the similarity that a pair needs here: it rejects 60 % of the miniature world's pairs
AT = 0.5  # the share of the steps after which previews are judged: at 0.4, the default, they tell much less here
_HELD_OUT = 3  # one pair of so many
_SAVED = 0.10


def watching(profile: Profile) -> Profile:
    """The profile with previews after AT of the steps."""
    abort = profile.generate.abort.model_copy(update={"at": AT})
    return profile.model_copy(update={"generate": profile.generate.model_copy(update={"abort": abort})})


@dataclass(frozen=True, slots=True)
class Painted:
    """A pair that was painted to its end: the CLIP cosine of its preview and that of its images."""

    preview: float
    final: float


def abort_figures(pairs: Sequence[Painted], profile: Profile) -> Iterator[Figure]:
    """Thresholds fitted to two pairs of three, judged on the third.

    Too few pairs for the profile's `loss` are fitted to the smallest loss that they can promise; the figures then have
    no target.
    """
    previews = [Preview(pair.preview, pair.final > GATE) for pair in pairs]
    judged = previews[::_HELD_OUT]
    fitted = [each for number, each in enumerate(previews) if number % _HELD_OUT]
    kept = sum(each.kept for each in fitted)
    yield Figure(f"early abort: pairs rejected by a gate of {GATE}", len(previews) - _kept(previews), len(previews))
    if not kept or not judged:
        return
    loss = profile.generate.abort.loss
    enough = kept >= least_kept(loss)
    promised = loss if enough else upper_bound(0, kept) * 1.001  # beyond the rounding of the bound
    found = calibrate(fitted, promised)
    below, above = found.below.threshold, found.above.threshold
    beyond = [
        each
        for each in judged
        if (below is not None and each.score < below) or (above is not None and each.score > above)
    ]
    lost, there = _kept(beyond), _kept(judged)
    sides = sum(threshold is not None for threshold in (below, above))
    yield Figure(f"… loss promised on each side, by {kept} kept pairs", promised, 1, at_most=True)
    said = f"{lost} of {there} kept pairs lost, held out: at most {upper_bound(lost, there):.1%} with 95 % certainty"
    yield Figure(f"… {said}", lost, there, max(sides, 1) * loss if enough else None, at_most=True)
    failing = len(judged) - there
    yield Figure("… of the pairs that fail the gate, those given up, held out", len(beyond) - lost, failing)
    saved = len(beyond) * (1 - preview_at(profile)) * (1 - profile.generate.abort.finished)
    yield Figure("… painting saved, held out", saved, len(judged), _SAVED if enough else None)


def _kept(previews: Sequence[Preview]) -> int:
    return sum(each.kept for each in previews)
