"""The names of all scores, and bounds on them as people type them: `clip_text_cosine=0.5`."""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import get_args

from imgdiffd.errors import InputError
from imgdiffd.method.messages import (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    PREVIEW_COSINE,
    YES_PROBABILITY,
    match_key,
    noun_key,
)
from imgdiffd.method.profile_sections import ImageTextKind
from imgdiffd.method.removal import erased_key, original_key

OF_PAIR = "pair."  # in front of the name of a score of a whole pair: regions have scores of the same names
_KINDS: tuple[str, ...] = get_args(ImageTextKind)
_PAIR = (CLIP_IMAGE_COSINE, PREVIEW_COSINE, YES_PROBABILITY)
_REGION = (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    YES_PROBABILITY,
    *(key(kind, side) for key in (noun_key, match_key) for kind in _KINDS for side in (1, 2)),
)
_OBJECT = tuple(key(kind) for key in (original_key, erased_key) for kind in _KINDS)
SCORE_NAMES = (*(OF_PAIR + name for name in _PAIR), *_REGION, *_OBJECT)


def all_scores(pair: Mapping[str, float], part: Mapping[str, float]) -> dict[str, float]:
    """The scores of a pair and of one of its regions or objects under the names of SCORE_NAMES."""
    return {**{OF_PAIR + name: value for name, value in pair.items()}, **part}


def bounds_of(texts: Iterable[str]) -> dict[str, float]:
    """Bounds by score, from texts of the form NAME=VALUE. Raises InputError with code `bad_score`."""
    bounds: dict[str, float] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise _wrong(
                f"{text[:100]!r} is not a bound", "write the score's name, = and a number: pair.clip_image_cosine=0.95"
            )
        if name not in SCORE_NAMES:
            near = difflib.get_close_matches(name, SCORE_NAMES, 1)
            hint = f"did you mean {near[0]}?" if near else f"the scores are: {', '.join(SCORE_NAMES)}"
            raise _wrong(f"there is no score {name[:100]!r}", hint)
        if name in bounds:
            raise _wrong(f"the score {name} has two such bounds", "give one")
        bounds[name] = _number(name, value)
    return bounds


def _number(name: str, value: str) -> float:
    try:
        number = float(value) if value.isascii() and "_" not in value else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _wrong(f"the bound on {name} is not a number: {value[:100]!r}", "write one such as 0.5")
    return number


def _wrong(what: str, hint: str) -> InputError:
    return InputError(what, code="bad_score", hint=hint)
