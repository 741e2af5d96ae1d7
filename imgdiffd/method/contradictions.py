"""Finds what is wrong with a profile as a whole: bounds that nothing can pass, placeholders that nothing fills."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from imgdiffd.method.profile_sections import Bound, ImageTextKind, Pair

if TYPE_CHECKING:
    from imgdiffd.method.profile import Profile

Span = tuple[float, float]
COSINE: Span = (-1.0, 1.0)
PROBABILITY: Span = (0.0, 1.0)
_PLACEHOLDER = re.compile(r"\{\s*\w+\s*\}")


def contradiction(profile: "Profile") -> str:
    """The first contradiction, led by its key; '' where there is none.

    Profiles that a database has are taken as they are: only files are held to this.
    """
    return next(chain(_unfilled(profile), _impassable(profile), _sizes(profile), _abort(profile)), "")


def _unfilled(profile: "Profile") -> Iterator[str]:
    prompts = (
        ("rewrite.prompt", profile.rewrite.prompt, ("{caption}",)),
        ("describe.prompt", profile.describe.prompt, ("{box}",)),
        ("contrast.prompt", profile.contrast.prompt, ("{left}", "{right}")),
        ("natural.prompt", profile.natural.prompt, ()),
        ("removal.prompt", profile.removal.prompt, ()),
        ("rewrite.system_prompt", profile.rewrite.system_prompt, ()),
        ("describe.system_prompt", profile.describe.system_prompt, ()),
        ("contrast.system_prompt", profile.contrast.system_prompt, ()),
    )
    for key, prompt, known in prompts:
        for found in _PLACEHOLDER.findall(prompt):
            if found not in known:
                yield f"{key}: {found} stands for nothing here; {' and '.join(known) or 'nothing'} is filled in"


def _impassable(profile: "Profile") -> Iterator[str]:
    pair, locate, describe, removal = profile.pair, profile.locate, profile.describe, profile.removal
    if not _some_pair_passes(pair):
        yield f"pair: no cosine is above {pair.above.value} and below {pair.below.value}, so no pair can pass"
    filters: list[tuple[str, Bound | None, Bound | None, Span]] = [
        ("locate.crop_cosine_below", None, locate.crop_cosine_below, COSINE),
        ("locate.noun_above", locate.noun_above, None, _span_of(locate.noun_kind)),
        ("describe.text_cosine_below", None, describe.text_cosine_below, COSINE),
        ("describe.match_above", describe.match_above, None, _span_of(describe.match_kind)),
        ("removal.crop_cosine_below", None, removal.crop_cosine_below, COSINE),
        ("removal.original_above", removal.original_above, None, _span_of(removal.match_kind)),
        ("removal.erased_below", None, removal.erased_below, _span_of(removal.match_kind)),
    ]
    if profile.natural.enabled and profile.natural.rule == "probability":
        filters.append(("natural.yes_above", profile.natural.yes_above, None, PROBABILITY))
    for key, above, below, (least, most) in filters:
        bound = above or below
        assert bound is not None
        if not _some_score_passes(above, below, (least, most)):
            yield f"{key}: no score can pass {bound.value}: scores lie between {least:g} and {most:g}"


def _span_of(kind: ImageTextKind) -> Span:
    return COSINE if kind == "blip_itc_cosine" else PROBABILITY


def _some_score_passes(above: Bound | None, below: Bound | None, span: Span) -> bool:
    low, is_open = max((span[0], False), (above.value, not above.closed) if above else (span[0], False))
    high, is_closed = min((span[1], True), (below.value, below.closed) if below else (span[1], True))
    return low < high or (low == high and is_closed and not is_open)


def _some_pair_passes(pair: Pair) -> bool:
    if pair.decimals is None or not _some_score_passes(pair.above, pair.below, COSINE):
        return _some_score_passes(pair.above, pair.below, COSINE)
    scale = 10**pair.decimals
    first = round(max(pair.above.value, COSINE[0]) * scale)
    near = (round((first + step) / scale, pair.decimals) for step in (-1, 0, 1, 2))
    return any(pair.above.above(score) and pair.below.below(score) for score in near)


def _sizes(profile: "Profile") -> Iterator[str]:
    locate = profile.locate
    if locate.min_area > locate.max_area:
        yield f"locate.min_area: {locate.min_area} is over max_area, {locate.max_area}, so no box can pass"


def _abort(profile: "Profile") -> Iterator[str]:
    abort = profile.generate.abort
    if abort.mode != "on":
        return
    below, above = (
        (COSINE[0] if abort.below is None else abort.below),
        (COSINE[1] if abort.above is None else abort.above),
    )
    if below >= above:
        yield f"generate.abort: every pair would be given up: no preview lies between {below:g} and {above:g}"
    if abort.finished == 1:
        yield 'generate.abort.finished: no pair would be given up, since all are finished: set mode = "shadow"'
    if abort.finished == 0 and abort.below is None and abort.above is None:
        yield "generate.abort.finished: 0 leaves no pair by which thresholds that have become wrong would be noticed"
