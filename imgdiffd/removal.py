"""Object removal (paper, section 16): which things to erase, which erasures hold, and the question about each.

It owns these decisions and records; it does not know how a thing is found, erased or described.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from imgdiffd.message import Box, Scores
from imgdiffd.pipeline import seed_of
from imgdiffd.profile import Profile, Removal
from imgdiffd.selection import PASSED, Verdict, suppress_overlaps

Side = Literal["left", "right"]

QUESTION = (
    "Analyse the left image and the right image (separated by the black vertical bar). Which image has the object "
    'related to "{caption}" within the red bounding box?\nA. the left image\nB. the right image\nAnswer with the '
    "option's letter from the given choices directly."
)
_LETTERS: dict[Side, str] = {"left": "A", "right": "B"}


@dataclass(frozen=True, slots=True)
class EraseInput:
    """A pair that passed the image-similarity filter; `caption` and `attempt` are what its seeds are drawn from."""

    item: int
    image1: str
    image2: str
    caption: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RemovalTarget:
    """A box that holds a thing: `candidate` is its place among its picture's, `cosine` that of the pair's two crops."""

    candidate: int
    box: Box
    cosine: float


@dataclass(frozen=True, slots=True)
class Erasure:
    """A thing taken out of picture `image` (1 or 2) of a pair; `index` numbers that picture's, most different first.

    `source` names the pair's picture, `erased` the new one, which is `size_px` squared as `box` is measured.
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
    """Everything erased of a pair; nothing where no thing was found."""

    item: int
    erasures: tuple[Erasure, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What stands in an erasure's box in the original, and how well that fits both pictures' crops there."""

    erasure: Erasure
    text: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class RemovalSample:
    """A finished pair. Everything said of it follows from `holder`, the side that still holds the thing.

    `original` and `erased` are its two pictures with the red box, relative to the picture folder.
    """

    erasure: Erasure
    caption: str
    holder: Side
    original: str
    erased: str

    @property
    def left(self) -> str:
        """The left picture."""
        return self.original if self.holder == "left" else self.erased

    @property
    def right(self) -> str:
        """The right picture."""
        return self.original if self.holder == "right" else self.erased

    @property
    def question(self) -> str:
        """What a model is asked."""
        return QUESTION.replace("{caption}", self.caption)

    @property
    def answer(self) -> str:
        """The letter of the side that still holds the thing."""
        return _LETTERS[self.holder]

    @property
    def bbox(self) -> list[float]:
        """The ungrown box in 0–1, two decimals."""
        return [round(edge / self.erasure.size_px, 2) for edge in self.erasure.box]


def original_key(kind: str) -> str:
    """The score of the original's crop against its description."""
    return f"{kind}.original"


def erased_key(kind: str) -> str:
    """The score of the erased picture's crop against the original's description."""
    return f"{kind}.erased"


def choose_targets(
    boxes: Sequence[Box], cosines: Sequence[float | None], removal: Removal
) -> tuple[RemovalTarget, ...]:
    """The boxes of one picture that hold a thing, most different first; none where there is no box.

    A thing of one picture only makes the pair's two crops differ. Of overlapping boxes the more different one stays.
    """
    found = [
        RemovalTarget(index, box, cosine)
        for index, (box, cosine) in enumerate(zip(boxes, cosines, strict=True))
        if cosine is not None and removal.crop_cosine_below.below(cosine)
    ]
    kept = suppress_overlaps([each.box for each in found], [each.cosine for each in found], removal.overlap_iou)
    return tuple(found[index] for index in kept[: removal.targets])


def judge_inspection(text: str, scores: Mapping[str, float], removal: Removal) -> Verdict:
    """Whether a thing was there and is gone: the original's crop fits its description, the erased one's does not."""
    if not text.strip():
        return Verdict("description_empty")
    checks = (
        (
            original_key(removal.match_kind),
            removal.original_above.above,
            "description_mismatch",
            removal.original_above,
        ),
        (erased_key(removal.match_kind), removal.erased_below.below, "still_there", removal.erased_below),
    )
    for key, passes, reason, bound in checks:
        score = scores.get(key)
        if score is None or math.isnan(score):
            return Verdict("score_missing", key)
        if not passes(score):
            return Verdict(reason, f"{key} {score:.4f}, bound {bound.value}")
    return PASSED


def erase_seed(profile: Profile, given: EraseInput, image: int, index: int) -> int:
    """What comes in the place of thing `index` of picture `image`."""
    return seed_of(profile.seed, given.caption, given.attempt, f"erase:{image}:{index}")


def holder_of(erasure: Erasure) -> Side:
    """The side that the original stands on: even odds, from the erasure's seed."""
    return "left" if seed_of(erasure.seed, "", 0, "removal-sides") & 1 else "right"


def record(sample: RemovalSample, path: str) -> dict[str, Any]:
    """The sample as the release writes it; `path` names its pictures without their ends."""
    return {
        "bbox": sample.bbox,
        "conversations": [
            {"from": "human", "value": sample.question},
            {"from": "gpt", "value": sample.answer},
        ],
        "path": path,
    }
