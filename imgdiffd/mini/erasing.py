"""Object removal on trial: pairs through the real erase and inspect stages, judged by the world's ground truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Removal
from imgdiffd.method.removal import Inspection, judge_inspection
from imgdiffd.method.removal_messages import EraseInput, Erasure
from imgdiffd.mini.ground_truth import iou, outside
from imgdiffd.mini.harness import Harness
from imgdiffd.stages.erase import erase
from imgdiffd.stages.inspect import inspect
from imgdiffd.store import ItemStory


@dataclass(frozen=True, slots=True)
class Erased:
    """An erasure whose box lies on one object (IoU at least 0.5): what became of that object, as the judge sees it.

    `still_seen`: something of that noun is there. `passed`: the filter believes that the object is gone.
    """

    still_seen: bool
    passed: bool


@dataclass(frozen=True, slots=True)
class Removals:
    """The objects erased from some pairs, and how many of the pixels that must not change did."""

    erased: tuple[Erased, ...]
    changed_outside: int
    outside: int


def remove_objects(harness: Harness, stories: Sequence[ItemStory], profile: Profile) -> Removals:
    """Erase and inspect all objects of the stories' pairs."""
    inputs = [
        EraseInput(story.item, story.pair.image1, story.pair.image2, story.caption, story.attempt)
        for story in stories
        if story.pair is not None and story.pair.image2
    ]
    with torch.inference_mode():
        outputs = erase(harness.models, profile, inputs, harness.images)
        erasures = [erasure for output in outputs for erasure in output.erasures]
        inspections = inspect(harness.models, profile, erasures, harness.images)
    moved = [_moved(harness, erasure, profile.removal) for erasure in erasures]
    judged = tuple(_judged(harness, inspections, profile.removal)) if inspections else ()
    return Removals(judged, sum(changed for changed, _ in moved), sum(total for _, total in moved))


def _judged(harness: Harness, inspections: Sequence[Inspection], removal: Removal) -> Iterator[Erased]:
    names = [name for each in inspections for name in (each.erasure.source, each.erasure.erased)]
    verdicts = harness.judge.see(np.stack([harness.pixels(name) for name in names]))
    for each, before, after in zip(inspections, verdicts[0::2], verdicts[1::2], strict=True):
        shown = max(before.objects, key=lambda seen: iou(seen.box, each.erasure.box), default=None)
        if shown is not None and iou(shown.box, each.erasure.box) >= 0.5:
            left = [seen for seen in after.objects if seen.noun == shown.noun and iou(seen.box, shown.box) >= 0.3]
            yield Erased(bool(left), judge_inspection(each.text, each.scores, removal).passed)


def _moved(harness: Harness, erasure: Erasure, removal: Removal) -> tuple[int, int]:
    """How many pixels changed outside an erasure's box, grown by the paste-back's reach, and how many are there."""
    first, second = harness.pixels(erasure.source), harness.pixels(erasure.erased)
    x1, y1, x2, y2 = erasure.box
    where = outside((first.shape[0], first.shape[1]), [(x1, y1, x2, y2)], removal.dilate_px + removal.feather_px)
    return int((first != second).any(axis=2)[where].sum()), int(where.sum())
