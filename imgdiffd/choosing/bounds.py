"""How a score is spread, and what each bound on it would yield if nothing else of the profile changed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType

import numpy as np

from imgdiffd.choosing.boxes import is_above, is_below, noun_scores
from imgdiffd.choosing.columns import Array, Columns, scores
from imgdiffd.choosing.course import SAMPLED, WAITS
from imgdiffd.choosing.gathering import STAGES
from imgdiffd.choosing.outlook import Outlook, outlook
from imgdiffd.choosing.reusing import Reusable
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, CLIP_TEXT_COSINE, YES_PROBABILITY, match_key
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Bound
from imgdiffd.pipeline import Stage

_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_MOST_BINS = 30
_LOOSEST = {True: Bound(value=-1e9), False: Bound(value=1e9)}  # by whether scores must lie above


@dataclass(frozen=True, slots=True)
class BoundChoice:
    """What one bound on a score yields: `passing` of all that have it, and `samples` of which it is certain.

    `open` things, captions or their regions, may become samples, but lack an output that is not stored.
    """

    bound: float
    passing: int
    samples: int
    open: int


@dataclass(frozen=True, slots=True)
class ScoreBounds:
    """A score that the profile's `key` bounds, `above` or below, in bins between `edges`.

    `counts` has one number fewer than `edges`; `missing` is how many lack the score. `choices` has what a bound at each
    edge would yield, `own` what the profile's does, and `marks` the bounds of profiles by name.
    """

    key: str
    of: str
    above: bool
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    missing: int
    choices: tuple[BoundChoice, ...]
    own: BoundChoice
    marks: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Score:
    """A score: what has it, the stage that it decides about, the bounds on it, and where its values are."""

    of: str
    stage: Stage
    keys: tuple[str, ...]
    values: Callable[[Columns, Profile], Array]
    owner: str  # the table that the values belong to
    independent: bool = True  # whether a verdict by it changes nothing for anything else


def _of_items(key: str) -> Callable[[Columns, Profile], Array]:
    return lambda columns, profile: scores(columns.items, key)


def _rounded(columns: Columns, profile: Profile) -> Array:
    value, decimals = scores(columns.items, CLIP_IMAGE_COSINE), profile.pair.decimals
    if decimals is None:
        return value
    return np.array([round(each, decimals) for each in value.tolist()], dtype=np.float64)


def _matches(columns: Columns, profile: Profile) -> Array:
    first, second = (scores(columns.regions, match_key(profile.describe.match_kind, side)) for side in (1, 2))
    return np.minimum(first, second)


# By the name that `imgdiffd thresholds --score` takes.
SCORES: Mapping[str, _Score] = MappingProxyType(
    {
        "pair": _Score("pairs", Stage.COMPARE, ("pair.above", "pair.below"), _rounded, "items"),
        "natural": _Score("pairs", Stage.VET, ("natural.yes_above",), _of_items(YES_PROBABILITY), "items"),
        "crops": _Score(
            "boxes",
            Stage.LOCATE,
            ("locate.crop_cosine_below",),
            lambda columns, profile: scores(columns.boxes, CLIP_IMAGE_COSINE),
            "boxes",
            independent=False,
        ),
        "nouns": _Score(
            "boxes",
            Stage.LOCATE,
            ("locate.noun_above",),
            lambda columns, profile: noun_scores(columns, profile.locate),
            "boxes",
            independent=False,
        ),
        "texts": _Score(
            "regions",
            Stage.DESCRIBE,
            ("describe.text_cosine_below",),
            lambda columns, profile: scores(columns.regions, CLIP_TEXT_COSINE),
            "regions",
        ),
        "descriptions": _Score("regions", Stage.DESCRIBE, ("describe.match_above",), _matches, "regions"),
    }
)


def score_bounds(
    columns: Columns,
    name: str,
    profile: Profile,
    profile_of: Callable[[int], Profile],
    marked: Mapping[str, Profile] = MappingProxyType({}),
) -> list[ScoreBounds]:
    """How the score called `name` is spread, once for each bound on it; empty where nothing has the score.

    The bounds of the profiles `marked` are noted, by their names.
    """
    score = SCORES[name]
    values = score.values(columns, profile)
    there = values[~np.isnan(values)]
    if not len(there):
        return []
    found = []
    for key in score.keys:
        above = key.endswith("above")
        own: Bound = attrgetter(key)(profile)
        edges = _edges(there, own.value)
        counts = np.histogram(there, np.array(edges))[0]
        bounds = [Bound(value=edge, closed=own.closed) for edge in edges]
        yields = _yields(columns, score, key, values, profile, profile_of)
        choices = tuple(_choice(bound, there, above, yields) for bound in bounds)
        marks = {title: attrgetter(key)(each).value for title, each in marked.items()}
        missing = len(values) - len(there)
        counted = tuple(counts.tolist())
        found.append(
            ScoreBounds(
                key, score.of, above, edges, counted, missing, choices, _choice(own, there, above, yields), marks
            )
        )
    return found


def _edges(values: Array, bound: float) -> tuple[float, ...]:
    """Round edges, at most _MOST_BINS bins, around all values and the bound."""
    low, high = min(values.min(), bound), max(values.max(), bound)
    step = next((step for step in _STEPS if (high - low) / step < _MOST_BINS - 1), (high - low) / _MOST_BINS)
    first, last = int(np.floor(low / step)), int(np.floor(high / step)) + 1
    return tuple(round(number * step, 6) for number in range(first, last + 1))


def _choice(bound: Bound, values: Array, above: bool, yields: Callable[[Bound], tuple[int, int]]) -> BoundChoice:
    passing = is_above(values, bound) if above else is_below(values, bound)
    return BoundChoice(bound.value, int(passing.sum()), *yields(bound))


def _yields(
    columns: Columns,
    score: _Score,
    key: str,
    values: Array,
    profile: Profile,
    profile_of: Callable[[int], Profile],
) -> Callable[[Bound], tuple[int, int]]:
    """What tells, for a bound under `key`, how many samples there would be and how many things stay open.

    Where a score decides about single pairs or regions alone, one outlook without any bound on it answers for all.
    """

    def under(bound: Bound) -> Outlook:
        return outlook(columns, _with(profile, key, bound), profile_of)

    if not score.independent:
        return lambda bound: _counted(under(bound))
    above = key.endswith("above")
    loosest = under(_LOOSEST[above])
    item, stored = loosest.regions["item"], loosest.regions["stored"]
    if score.owner == "items":
        # A caption that waits for the score's own stage or an earlier one is not judged by what is stored of it.
        captions = np.where(loosest.stage > STAGES[score.stage], values, np.nan)
        regions = captions[item]
    else:
        captions = np.full(len(columns), np.nan)
        counts = Reusable(columns, profile, profile_of)[score.stage][item]
        regions = np.where(counts, np.append(values, np.nan)[stored], np.nan)
    sampled, waits = loosest.regions["state"] == SAMPLED, loosest.regions["state"] == WAITS
    early = loosest.state == WAITS
    early[item] = False  # their regions tell

    def passes(found: Array, bound: Bound) -> Array:
        return np.isnan(found) | (is_above(found, bound) if above else is_below(found, bound))

    def count(bound: Bound) -> tuple[int, int]:
        passing = passes(regions, bound)
        unknown = (waits & passing).sum() + (early & passes(captions, bound)).sum()
        return int((sampled & passing).sum()), int(unknown)

    return count


def _counted(found: Outlook) -> tuple[int, int]:
    early = found.state == WAITS
    early[found.regions["item"]] = False
    waits = found.regions["state"] == WAITS
    return int((found.regions["state"] == SAMPLED).sum()), int(waits.sum() + early.sum())


def _with(profile: Profile, key: str, bound: Bound) -> Profile:
    section, _, name = key.partition(".")
    changed = getattr(profile, section).model_copy(update={name: bound})
    return profile.model_copy(update={section: changed})
