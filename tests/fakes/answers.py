"""Captions as a reader gives them, and what a worker might answer to their stage inputs, under the default profile."""

from collections.abc import Sequence

from imgdiffd.job import CaptionRecord
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.testing import results

PROFILE = load_profile("default")
VETTED = PROFILE.model_copy(update={"natural": PROFILE.natural.model_copy(update={"enabled": True})})
BOXES = results.BOXES


def captions(count: int, start: int = 1) -> list[CaptionRecord]:
    """Different captions, each with a cat, which the made-up rewrites replace by a dog."""
    return [CaptionRecord(f"a cat on mat number {n}", f"id-{n}", n) for n in range(start, start + count)]


def answer(given: StageInput, passes: bool = True, profile: Profile = PROFILE, boxes: int = 2) -> StageOutput:
    """What a worker might answer; unless it `passes`, a filter of this stage rejects it, where the stage has one."""
    return results.result(given, profile, passes, boxes)


def answers(given: Sequence[StageInput], passes: bool = True, boxes: int = 2) -> list[StageOutput]:
    """`answer` to each."""
    return [answer(one, passes, boxes=boxes) for one in given]
