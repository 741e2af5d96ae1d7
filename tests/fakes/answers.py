"""Stage outputs made up for a stage's inputs: ones that every filter lets through, and ones that it does not.

It owns the made-up scores; it does not know where they are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from imgdiffd.method.messages import (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    YES_PROBABILITY,
    Candidate,
    CompareInput,
    CompareOutput,
    ContrastInput,
    ContrastOutput,
    DescribeInput,
    DescribeOutput,
    Description,
    Difference,
    GenerateInput,
    GenerateOutput,
    LocateInput,
    LocateOutput,
    Rendered,
    RenderInput,
    RenderOutput,
    RewriteInput,
    RewriteOutput,
    StageInput,
    StageOutput,
    VetInput,
    VetOutput,
    match_key,
    noun_key,
)
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.removal import erased_key, original_key
from imgdiffd.method.removal_messages import (
    EraseInput,
    EraseOutput,
    Erasure,
    FoundBox,
    Inspected,
    InspectInput,
    InspectOutput,
)

PROFILE = load_profile("default")
VETTED = PROFILE.model_copy(update={"natural": PROFILE.natural.model_copy(update={"enabled": True})})
IMAGE_PX = 100
BOXES = ((0, 0, 40, 40), (50, 50, 90, 90), (0, 50, 40, 90))


@dataclass(frozen=True)
class Caption:
    """A caption as a reader would give it; it holds a cat that `answer` replaces."""

    text: str
    source_id: str | None = None
    line: int = 1


@dataclass(frozen=True)
class Problem:
    """A record as a reader would refuse it."""

    line: int
    code: str
    message: str


def captions(count: int, start: int = 1) -> list[Caption]:
    """Different captions, each with a cat."""
    return [Caption(f"a cat on mat number {n}", f"id-{n}", n) for n in range(start, start + count)]


def _answer_pair(given: RewriteInput | GenerateInput | CompareInput | VetInput, passes: bool) -> StageOutput:
    match given:
        case RewriteInput():
            text = given.caption.replace("cat", "dog") if passes else given.caption
            return RewriteOutput(given.item, text, False, 8, 8, seed=1000 + given.attempt)
        case GenerateInput():
            stem = f"{given.item}-{given.attempt}"
            return GenerateOutput(given.item, f"{stem}-1.png", f"{stem}-2.png", IMAGE_PX, IMAGE_PX, seed=7)
        case CompareInput():
            return CompareOutput(given.item, {CLIP_IMAGE_COSINE: 0.95 if passes else 0.5})
        case VetInput():
            return VetOutput(given.item, "Yes" if passes else "no.", {YES_PROBABILITY: 0.9 if passes else 0.2})


def _answer_regions(
    given: LocateInput | DescribeInput | ContrastInput | RenderInput, passes: bool, profile: Profile, boxes: int
) -> StageOutput:
    match given:
        case LocateInput():
            nouns = {noun_key(profile.locate.noun_kind, side): 0.9 for side in (1, 2)}
            candidates = tuple(
                Candidate(1 + rank % 2, box, {CLIP_IMAGE_COSINE: 0.1 * (rank + 1) if passes else 0.99, **nouns})
                for rank, box in enumerate(BOXES[:boxes])
            )
            return LocateOutput(given.item, candidates)
        case DescribeInput():
            matches = {match_key(profile.describe.match_kind, side): 0.9 for side in (1, 2)}
            scores = {CLIP_TEXT_COSINE: 0.3 if passes else 0.99, **matches}
            return DescribeOutput(
                given.item, tuple(Description(region.index, "a cat", "a dog", scores) for region in given.regions)
            )
        case ContrastInput():
            text = "A cat became a dog." if passes else " "
            return ContrastOutput(given.item, tuple(Difference(region.index, text) for region in given.regions))
        case RenderInput():
            return RenderOutput(
                given.item,
                tuple(
                    Rendered(region.index, f"{given.item}-r{region.index}-left.png", f"{given.item}-right.png")
                    for region in given.regions
                ),
            )


def _answer_removal(given: EraseInput | InspectInput, passes: bool, profile: Profile) -> StageOutput:
    """One object of each image, with a box beside it that has not changed."""
    if isinstance(given, EraseInput):
        found = [FoundBox(image, box, {CLIP_IMAGE_COSINE: 0.99}) for image in (1, 2) for box in BOXES[1:2]]
        if not passes:
            return EraseOutput(given.item, (), tuple(found))
        found += [FoundBox(image, BOXES[0], {CLIP_IMAGE_COSINE: 0.2}) for image in (1, 2)]
        made = tuple(
            Erasure(given.item, image, 0, BOXES[0], IMAGE_PX, 0.2, source, f"{source[:-4]}-e0.png", 70 + image)
            for image, source in ((1, given.image1), (2, given.image2))
        )
        return EraseOutput(given.item, made, tuple(found))
    kind = profile.removal.match_kind
    scores = {original_key(kind): 0.9, erased_key(kind): 0.1 if passes else 0.8}
    names = [(f"{each.source[:-4]}-with.png", f"{each.source[:-4]}-without.png") for each in given.erasures]
    return InspectOutput(
        given.item,
        tuple(
            Inspected(each.image, each.index, f"object of image {each.image}", scores, *(pair if passes else ()))
            for each, pair in zip(given.erasures, names, strict=True)
        ),
    )


def answer(given: StageInput, passes: bool = True, profile: Profile = PROFILE, boxes: int = 2) -> StageOutput:
    """What a worker might answer; with `passes` false a filter of this stage rejects it, where the stage has one."""
    if isinstance(given, EraseInput | InspectInput):
        return _answer_removal(given, passes, profile)
    if isinstance(given, RewriteInput | GenerateInput | CompareInput | VetInput):
        return _answer_pair(given, passes)
    return _answer_regions(given, passes, profile, boxes)


def answers(given: Sequence[StageInput], passes: bool = True, boxes: int = 2) -> list[StageOutput]:
    """`answer` to each."""
    return [answer(one, passes, boxes=boxes) for one in given]
