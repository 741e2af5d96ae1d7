"""Object removal (paper, section 16): which objects to erase, which erasures hold, and the question about each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from imgdiffd.method.filters import PASSED, Verdict, summarise
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, Box, Scores
from imgdiffd.method.overlap import suppress_overlaps
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Removal
from imgdiffd.method.removal_messages import EraseInput, EraseOutput, Erasure, InspectOutput
from imgdiffd.pipeline import seed_of

Side = Literal["left", "right"]

QUESTION = (
    "Analyse the left image and the right image (separated by the black vertical bar). Which image has the object "
    'related to "{caption}" within the red bounding box?\nA. the left image\nB. the right image\nAnswer with the '
    "option's letter from the given choices directly."
)
_LETTERS: dict[Side, str] = {"left": "A", "right": "B"}


@dataclass(frozen=True, slots=True)
class RemovalTarget:
    """A box that holds an object: `candidate` is its place among its image's, `cosine` that of the pair's two crops."""

    candidate: int
    box: Box
    cosine: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """What stands in an erasure's box in the original, and how well that fits both images' crops there."""

    erasure: Erasure
    text: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class RemovalSample:
    """A finished pair. Everything said of it follows from `holder`, the side that still holds the object.

    `original` and `erased` are its two images with the red box, relative to the image folder. `key` is its `sample_key`
    once it is recorded.
    """

    erasure: Erasure
    caption: str
    holder: Side
    original: str
    erased: str
    key: str = ""

    @property
    def left(self) -> str:
        """The left image."""
        return self.original if self.holder == "left" else self.erased

    @property
    def right(self) -> str:
        """The right image."""
        return self.original if self.holder == "right" else self.erased

    @property
    def question(self) -> str:
        """What a model is asked."""
        return QUESTION.replace("{caption}", self.caption)

    @property
    def answer(self) -> str:
        """The letter of the side that still holds the object."""
        return _LETTERS[self.holder]

    @property
    def bbox(self) -> list[float]:
        """The ungrown box in 0–1, two decimals."""
        return [round(edge / self.erasure.size_px, 2) for edge in self.erasure.box]


def original_key(kind: str) -> str:
    """The score of the original's crop against its description."""
    return f"{kind}.original"


def erased_key(kind: str) -> str:
    """The score of the erased image's crop against the original's description."""
    return f"{kind}.erased"


def choose_targets(
    boxes: Sequence[Box], cosines: Sequence[float | None], removal: Removal
) -> tuple[RemovalTarget, ...]:
    """The boxes of one image that hold an object, most different first; none where there is no box.

    An object of one image only makes the pair's two crops differ. Of overlapping boxes the more different one stays.
    """
    return _choose(boxes, cosines, removal)[0]


def judge_found(boxes: Sequence[Box], cosines: Sequence[float | None], removal: Removal) -> tuple[Verdict, ...]:
    """What is held against each box of one image: nothing against those that `choose_targets` takes."""
    return _choose(boxes, cosines, removal)[1]


def _choose(
    boxes: Sequence[Box], cosines: Sequence[float | None], removal: Removal
) -> tuple[tuple[RemovalTarget, ...], tuple[Verdict, ...]]:
    found = [
        RemovalTarget(index, box, cosine)
        for index, (box, cosine) in enumerate(zip(boxes, cosines, strict=True))
        if cosine is not None and removal.crop_cosine_below.below(cosine)
    ]
    kept = suppress_overlaps([each.box for each in found], [each.cosine for each in found], removal.overlap_iou)
    targets = tuple(found[index] for index in kept[: removal.targets])
    verdicts = [_why_alike(cosine, removal) for cosine in cosines]
    for each in found:
        verdicts[each.candidate] = Verdict("overlaps_more_different_box", f"IoU above {removal.overlap_iou.value}")
    for index in kept[removal.targets :]:
        verdicts[found[index].candidate] = Verdict("beyond_target_limit", f"at most {removal.targets} an image")
    for each in targets:
        verdicts[each.candidate] = PASSED
    return targets, tuple(verdicts)


def _why_alike(cosine: float | None, removal: Removal) -> Verdict:
    if cosine is None or math.isnan(cosine):
        return Verdict("score_missing", CLIP_IMAGE_COSINE)
    detail = f"{CLIP_IMAGE_COSINE} {cosine:.4f}, wanted below {removal.crop_cosine_below.value}"
    return Verdict("crops_too_similar", detail)


def judge_inspection(text: str, scores: Mapping[str, float], removal: Removal) -> Verdict:
    """Whether an object was there and is gone: the original's crop fits its description, the erased one's does not."""
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


def judge_erased(output: EraseOutput, removal: Removal) -> tuple[Verdict, tuple[Verdict, ...]]:
    """Whether anything was erased from a pair, and what is held against each box found, in order."""
    if not output.nouns:
        return Verdict("no_noun_changed", "wanted one in both captions"), ()
    verdicts = [PASSED for _ in output.found]
    for image in (1, 2):
        places = [place for place, each in enumerate(output.found) if each.image == image]
        boxes = [output.found[place].box for place in places]
        cosines = [output.found[place].scores.get(CLIP_IMAGE_COSINE) for place in places]
        for place, verdict in zip(places, judge_found(boxes, cosines, removal), strict=True):
            verdicts[place] = verdict
    if output.erasures:
        return PASSED, tuple(verdicts)
    why = summarise(verdicts).reason if verdicts else "the segmenter found nothing in either image"
    return Verdict("nothing_to_erase", why or ""), tuple(verdicts)


def judge_inspections(
    objects: Iterable[tuple[int, int]], output: InspectOutput, removal: Removal
) -> tuple[Verdict, ...]:
    """Whether each of the `objects` erased, (image, index), was there and is gone.

    An object without its record or its images is rejected: what is missing never counts as kept.
    """
    inspected = {(each.image, each.index): each for each in output.objects}
    verdicts: list[Verdict] = []
    for key in objects:
        each = inspected.get(key)
        if each is None:
            verdicts.append(Verdict("inspection_missing"))
            continue
        verdict = judge_inspection(each.text, each.scores, removal)
        drawn = bool(each.with_image and each.without_image)
        verdicts.append(verdict if drawn or not verdict.passed else Verdict("picture_missing"))
    return tuple(verdicts)


def erase_seed(profile: Profile, given: EraseInput, image: int, index: int) -> int:
    """What comes in the place of object `index` of image `image`."""
    return seed_of(profile.seed, given.caption, given.attempt, f"erase:{image}:{index}")


def holder_of(erasure: Erasure) -> Side:
    """The side that the original stands on: even odds, from the erasure's seed."""
    return "left" if seed_of(erasure.seed, "", 0, "removal-sides") & 1 else "right"
