"""Kinds of samples that need no work of their own: made from stored rows and kept images of the two products."""

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from imgdiffd.method.identity import sample_key
from imgdiffd.method.profile_sections import Render
from imgdiffd.method.removal import QUESTION as WHICH_HAS
from imgdiffd.store import RejectedRow

if TYPE_CHECKING:
    from imgdiffd.export.sample import Sample

ADDITION, NO_DIFFERENCE, HARD_NEGATIVE = "addition", "no_difference", "hard_negative"
TO_WHICH = WHICH_HAS.replace(
    'Which image has the object related to "{caption}" within the red bounding box?',
    'To which image would the object related to "{caption}" have to be added within the red bounding box, so that both '
    "images show the same?",
)
_OTHER = {"A": "B", "B": "A"}


@dataclass(frozen=True, slots=True)
class BoxStyle:
    """How the box of a sample is drawn that no stage has rendered; `bar_px` is the bar between its joined images."""

    render: Render
    bar_px: int


def addition(removal: "Sample") -> "Sample":
    """The removal question reversed: the answer is the side that lacks the object."""
    caption = removal.text_left or removal.text_right
    return replace(
        removal,
        key=hashlib.blake2b(f"{ADDITION} {removal.key}".encode(), digest_size=16).hexdigest(),
        kind=ADDITION,
        question=TO_WHICH.replace("{caption}", caption),
        answer=_OTHER[removal.answer],
    )


def no_difference(rejected: RejectedRow, sample: "Sample") -> "Sample":
    """A region whose descriptions agree, and its images too (`method.agreement`)."""
    said = sample.text_left.strip().rstrip(".")
    answer = f"There is no difference between the two areas. Both can be described as: {said}."
    return _of_reject(rejected, replace(sample, kind=NO_DIFFERENCE, answer=answer))


def hard_negative(rejected: RejectedRow, sample: "Sample") -> "Sample":
    """A rejected region with what would have been said of it, and the reason why that is not to be believed."""
    said = (text.strip().rstrip(".") for text in (sample.text_left, sample.text_right))
    told = "The left image shows: {}. The right image shows: {}.".format(*said)
    answer = sample.answer.strip() or told
    return _of_reject(rejected, replace(sample, kind=HARD_NEGATIVE, answer=answer, reason=rejected.reason))


def _of_reject(rejected: RejectedRow, sample: "Sample") -> "Sample":
    profile = rejected.settings
    return replace(
        sample,
        key=sample_key(profile, sample.caption, sample.kind, *sample.place),
        left=sample.plain_left,
        right=sample.plain_right,
        box_style=BoxStyle(profile.render, profile.contrast.bar_px),
    )
