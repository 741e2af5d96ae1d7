"""Captions as read from a file, and made-up worker outputs for their stages, under the default profile."""

from collections.abc import Sequence

from imgdiffd.job import CaptionRecord
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.testing import results

PROFILE = load_profile("default")
VETTED = PROFILE.model_copy(update={"natural": PROFILE.natural.model_copy(update={"enabled": True})})
SCREENED = VETTED.model_copy(update={"natural": VETTED.natural.model_copy(update={"shown": "samples"})})
BOXES = results.BOXES


def captions(count: int, start: int = 1) -> list[CaptionRecord]:
    """Different captions, each with a cat, which the made-up rewrites replace by a dog."""
    return [CaptionRecord(f"a cat on mat number {n}", f"id-{n}", n) for n in range(start, start + count)]


def answer(given: StageInput, passes: bool = True, profile: Profile = PROFILE, boxes: int = 2) -> StageOutput:
    """A plausible output; without `passes`, a filter of its stage rejects it, if the stage has one."""
    return results.result(given, profile, passes, boxes)


def answers(given: Sequence[StageInput], passes: bool = True, boxes: int = 2) -> list[StageOutput]:
    """`answer` for each input."""
    return [answer(one, passes, boxes=boxes) for one in given]
