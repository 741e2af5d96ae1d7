"""What the stages of object removal are asked and answer, and what every such record has: boxes and raw scores.

It does not know pipes, models or SQL, nor the other stages (`imgdiffd.method.messages`).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import PlainSerializer

NO_COSINE = -2.0  # lower than any: the cosine of an erasure is not known, since its sample was imported

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels of the image, x2 and y2 outside


def _finite(scores: dict[str, float]) -> dict[str, float]:
    return {key: score for key, score in scores.items() if math.isfinite(score)}


# Kind, or kind and what it compares ("blip_itc_cosine.noun1") -> raw value. JSON has no NaN: a score that overflowed
# travels as one that is missing, which no filter ever counts as "keep".
Scores = Annotated[dict[str, float], PlainSerializer(_finite, return_type=dict[str, float])]


@dataclass(frozen=True, slots=True)
class EraseInput:
    """A pair that passed the image-similarity filter; `caption` and `attempt` are what its seeds are drawn from.

    `nouns1` are the lemmas that only caption 1 has, `nouns2` those of caption 2.
    """

    item: int
    image1: str
    image2: str
    caption: str
    attempt: int
    nouns1: tuple[str, ...] = ()
    nouns2: tuple[str, ...] = ()
    kind: Literal["erase"] = "erase"


@dataclass(frozen=True, slots=True)
class FoundBox:
    """A box that the segmenter found in image `image` (1 or 2), brought to the removal's size."""

    image: int
    box: Box
    scores: Scores


@dataclass(frozen=True, slots=True)
class Erasure:
    """An object erased from image `image` (1 or 2) of a pair; `index` numbers that image's, most different first.

    `source` names the pair's image, `erased` the new one, which is `size_px` squared as `box` is measured.
    """

    item: int
    image: int
    index: int
    box: Box
    size_px: int
    cosine: float
    source: str
    erased: str
    seed: int


@dataclass(frozen=True, slots=True)
class EraseOutput:
    """Everything erased from a pair, nothing where no object was found; `found` are all boxes, kept or not.

    `nouns` is False for a pair that was not looked at, since the profile wants a changed noun in both captions.
    """

    item: int
    erasures: tuple[Erasure, ...]
    found: tuple[FoundBox, ...] = ()
    nouns: bool = True
    kind: Literal["erase"] = "erase"


@dataclass(frozen=True, slots=True)
class InspectInput:
    """A pair's erasures."""

    item: int
    erasures: tuple[Erasure, ...]
    kind: Literal["inspect"] = "inspect"


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is said of object `index` of image `image`. The boxed images are named where the filter let it pass."""

    image: int
    index: int
    text: str
    scores: Scores
    with_image: str = ""
    without_image: str = ""


@dataclass(frozen=True, slots=True)
class InspectOutput:
    """One record for each of the pair's erasures."""

    item: int
    objects: tuple[Inspected, ...]
    kind: Literal["inspect"] = "inspect"
