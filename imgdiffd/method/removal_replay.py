"""Replays what is stored of a pair's object removal under another profile (see `imgdiffd.method.replay`)."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.method.advance import Subject, advance
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal import choose_targets, judge_inspection
from imgdiffd.method.removal_messages import EraseOutput, Erasure, FoundBox, Inspected, InspectOutput
from imgdiffd.method.replay import Replay
from imgdiffd.method.reuse import unchanged
from imgdiffd.pipeline import PIPELINES, Pipeline, Stage


@dataclass(frozen=True, slots=True)
class StoredRemoval:
    """All raw output that is stored of the object removal of a pair with two `images`, under `profile`.

    `nouns` says whether each caption has a changed noun, `looked` whether any model looked at the pair. `inspected` is
    None where the objects were not inspected.
    """

    item: int
    caption: str
    profile: Profile
    attempt: int
    images: tuple[str, ...]
    nouns: tuple[bool, bool]
    looked: bool = False
    found: tuple[FoundBox, ...] = ()
    erasures: tuple[Erasure, ...] = ()
    inspected: tuple[Inspected, ...] | None = None


def replay_removal(stored: StoredRemoval, profile: Profile, gone: AbstractSet[str] = frozenset()) -> Replay | None:
    """As `replay`, for object removal; None where it waits for work on images that are gone.

    Removal never has a pair painted again: it then does not begin with this pair.
    """
    same = unchanged(stored.profile, profile)
    outputs: list[tuple[int, StageOutput]] = []
    erased = _erased(stored, profile) if Stage.ERASE in same else None
    subject = Subject(stored.item, PIPELINES[Pipeline.REMOVAL].stages[0], stored.attempt, stored.caption)
    if erased is not None:
        step = advance(subject, erased, profile)
        outputs.append((stored.attempt, erased))
        if step.state is not ItemState.READY:
            return Replay(tuple(outputs), step.stage, step.state, step.attempt)
        objects = tuple((each.image, each.index) for each in erased.erasures)
        subject = Subject(stored.item, step.stage, step.attempt, stored.caption, objects=objects)
        told = _inspected(stored, profile, gone) if Stage.INSPECT in same else None
        if told is not None:
            step = advance(subject, told, profile)
            outputs.append((stored.attempt, told))
            return Replay(tuple(outputs), step.stage, step.state, step.attempt)
        if not gone.isdisjoint(each.erased for each in erased.erasures):
            outputs, subject = [], Subject(stored.item, Stage.ERASE, stored.attempt, stored.caption)
    if not stored.images or not gone.isdisjoint(stored.images):
        return None
    return Replay(tuple(outputs), subject.stage, ItemState.READY, subject.attempt)


def _erased(stored: StoredRemoval, profile: Profile) -> EraseOutput | None:
    removal = profile.removal
    if removal.noun_rule == "both" and not all(stored.nouns):
        return EraseOutput(stored.item, (), nouns=False)
    if not stored.looked:
        return None
    for image in (1, 2):
        found = [each for each in stored.found if each.image == image]
        cosines = [each.scores.get(CLIP_IMAGE_COSINE) for each in found]
        targets = choose_targets([each.box for each in found], cosines, removal)
        chosen = [(index, target.box) for index, target in enumerate(targets)]
        if chosen != [(each.index, each.box) for each in stored.erasures if each.image == image]:
            return None
    return EraseOutput(stored.item, stored.erasures, stored.found)


def _inspected(stored: StoredRemoval, profile: Profile, gone: AbstractSet[str]) -> InspectOutput | None:
    if stored.inspected is None:
        return None
    objects = []
    for each in stored.inspected:
        images = (each.with_image, each.without_image)
        passes = judge_inspection(each.text, each.scores, profile.removal).passed
        if passes and not (all(images) and gone.isdisjoint(images)):
            return None
        objects.append(each if passes else Inspected(each.image, each.index, each.text, each.scores))
    return InspectOutput(stored.item, tuple(objects))
