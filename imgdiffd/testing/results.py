"""Made-up outputs of every stage, without models or files; they pass or fail the stage's filters as requested.

They do so under every built-in profile. The store's tests record these outputs unchanged; the fake worker gives them
real file names and writes the files (`imgdiffd.testing.stages`).
"""

import re

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
    Screened,
    ScreenInput,
    ScreenOutput,
    StageInput,
    StageOutput,
    VetInput,
    VetOutput,
    match_key,
    noun_key,
)
from imgdiffd.method.profile import Profile
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
from imgdiffd.pipeline import seed_of

IMAGE_PX = 100
BOXES = ((0, 0, 30, 30), (50, 50, 80, 80), (0, 50, 30, 80))
NOUNS = ("cat", "dog", "horse", "car", "boat", "chair", "tree", "bird", "clock", "apple", "lamp", "bench")


def result(
    given: StageInput, profile: Profile, passes: bool = True, boxes: int = 2, objects: tuple[int, int] = (1, 1)
) -> StageOutput:
    """A plausible output for `given`; without `passes`, a filter of its stage rejects it, if the stage has one.

    A pair differs in `boxes` boxes (at most 3). `objects` says how many objects are erased from image 1 and image 2.
    Only the first object of each image is erased without a trace.
    """
    if isinstance(given, EraseInput | InspectInput):
        return _removal(given, profile, passes, objects)
    if isinstance(given, RewriteInput | GenerateInput | CompareInput | VetInput):
        return _pair(given, profile, passes)
    return _regions(given, profile, passes, boxes)


def rewritten(caption: str) -> str:
    """`caption` with its first word that is in NOUNS, else its last word, replaced by the first of NOUNS not in it."""
    words = re.findall(r"[\w'-]+", caption) or [caption]
    known = {word.lower() for word in words}
    old = next((word for word in words if word.lower() in NOUNS), words[-1])
    return re.sub(
        rf"(?<!\w){re.escape(old)}(?!\w)", next(noun for noun in NOUNS if noun not in known), caption, count=1
    )


def _tokens(text: str) -> int:
    return len(text.split()) + 2


def _pair(given: RewriteInput | GenerateInput | CompareInput | VetInput, profile: Profile, passes: bool) -> StageOutput:
    match given:
        case RewriteInput():
            seed = seed_of(profile.seed, given.caption, given.attempt, "rewrite")
            tokens = _tokens(given.caption)
            if tokens > profile.rewrite.max_caption_tokens:
                return RewriteOutput(given.item, None, False, tokens, 0, seed)
            text = rewritten(given.caption) if passes else given.caption
            return RewriteOutput(given.item, text, False, tokens, _tokens(text), seed)
        case GenerateInput():
            stem = f"{given.item}-{given.attempt}"
            return GenerateOutput(given.item, f"{stem}-1.png", f"{stem}-2.png", IMAGE_PX, IMAGE_PX, seed=7)
        case CompareInput():
            low = min(0.5, profile.pair.above.value - 0.05)
            return CompareOutput(given.item, {CLIP_IMAGE_COSINE: 0.95 if passes else low})
        case VetInput():
            return VetOutput(given.item, "Yes" if passes else "no.", {YES_PROBABILITY: 0.9 if passes else 0.2})


def _regions(
    given: LocateInput | DescribeInput | ContrastInput | ScreenInput | RenderInput,
    profile: Profile,
    passes: bool,
    boxes: int,
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
        case ScreenInput():
            answer, score = ("Yes", 0.9) if passes else ("no.", 0.2)
            screened = (Screened(region.index, answer, {YES_PROBABILITY: score}) for region in given.regions)
            return ScreenOutput(given.item, tuple(screened))
        case RenderInput():
            return RenderOutput(
                given.item,
                tuple(
                    Rendered(region.index, f"{given.item}-r{region.index}-left.png", f"{given.item}-right.png")
                    for region in given.regions
                ),
            )


def _removal(
    given: EraseInput | InspectInput, profile: Profile, passes: bool, objects: tuple[int, int]
) -> EraseOutput | InspectOutput:
    if isinstance(given, EraseInput):
        sources = ((1, given.image1, objects[0]), (2, given.image2, objects[1]))
        found = [FoundBox(image, BOXES[-1], {CLIP_IMAGE_COSINE: 0.99}) for image, _, _ in sources]  # has not changed
        erasures: list[Erasure] = []
        for image, source, count in sources if passes else ():
            for index, box in enumerate(BOXES[:count]):
                found.append(FoundBox(image, box, {CLIP_IMAGE_COSINE: 0.2}))
                erased = f"{source[:-4]}-e{index}.png"
                erasures.append(Erasure(given.item, image, index, box, IMAGE_PX, 0.2, source, erased, seed=70 + image))
        return EraseOutput(given.item, tuple(erasures), tuple(found))
    kind, inspected = profile.removal.match_kind, []
    for each in given.erasures:
        gone, stem = passes and each.index == 0, each.source[:-4]
        scores = {original_key(kind): 0.9, erased_key(kind): 0.1 if gone else 0.8}
        names = (f"{stem}-with.png", f"{stem}-without.png") if gone else ()
        inspected.append(Inspected(each.image, each.index, f"object of image {each.image}", scores, *names))
    return InspectOutput(given.item, tuple(inspected))
