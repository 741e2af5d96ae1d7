"""locate: a pair → every box that the segmenter found in either image, with its raw scores (paper, section 3.2)."""

from collections.abc import Sequence

from torch import Tensor

from imgdiffd.method.filters import judge_area, judge_crops
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, Box, Candidate, LocateInput, LocateOutput, Scores, noun_key
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Locate
from imgdiffd.method.red_box import clamped
from imgdiffd.models.loading import Models
from imgdiffd.stages.images import Images
from imgdiffd.stages.scores import best, cosines, put

Pair = tuple[Tensor, Tensor]


def locate(models: Models, profile: Profile, inputs: Sequence[LocateInput], images: Images) -> tuple[LocateOutput, ...]:
    """Segment both images of every pair and score their boxes.

    Every box with an area gets its scores under `scores = "all"`, otherwise only up to the first that rejects it. A box
    without area stays a candidate without scores; its pair is unaffected.
    """
    pairs = [images.read_pair(entry.image1, entry.image2) for entry in inputs]
    found = models.need_segmenter.boxes([image for pair in pairs for image in pair], profile.locate)
    outputs = []
    for index, (entry, pair) in enumerate(zip(inputs, pairs, strict=True)):
        height, width = pair[0].shape[1:]
        sides = [[clamped(box, width, height) for box in found[2 * index + side]] for side in (0, 1)]
        scores = _scores(models, profile, entry, pair, [*sides[0], *sides[1]])
        candidates = [Candidate(side + 1, box, dict(scores[box])) for side in (0, 1) for box in sides[side]]
        outputs.append(LocateOutput(entry.item, tuple(candidates)))
    return tuple(outputs)


def _scores(
    models: Models, profile: Profile, entry: LocateInput, pair: Pair, boxes: Sequence[Box]
) -> dict[Box, Scores]:
    """The scores of each box; a box found in both images is scored once, since it means the same two crops.

    Boxes that are already rejected are scored after the others and apart from them: a score's last digit depends on
    what shares a pass with it, and what passes is to have the same scores whether these are asked for or not.
    """
    locate, everything = profile.locate, profile.scores == "all"
    height, width = pair[0].shape[1:]
    scores: dict[Box, Scores] = {box: {} for box in boxes}
    sizes = {box: judge_area(box, width, height, locate) for box in scores}
    whole = [box for box, verdict in sizes.items() if verdict.reason != "box_degenerate"]
    sized = [box for box in whole if sizes[box].passed or locate.area_test == "last"]
    for group in _apart(sized, whole if everything else sized):
        alike = cosines(*(models.need_clip.embed_crops(image, group) for image in pair))
        for box, cosine in zip(group, alike, strict=True):
            put(scores[box], CLIP_IMAGE_COSINE, cosine)
    # BLIP costs dozens of times as much as CLIP, whose score may have ruled a box out already.
    differing = [box for box in sized if judge_crops(scores[box], locate).passed]
    for group in _apart(differing, whole if everything else differing):
        # Whichever image a box was found in, image 1's crop is matched with caption 1's nouns, 2's with caption 2's.
        for side, image, nouns in ((1, pair[0], entry.nouns1), (2, pair[1], entry.nouns2)):
            for box, score in zip(group, _noun_scores(models, locate, image, group, nouns), strict=True):
                put(scores[box], noun_key(locate.noun_kind, side), score)
    return scores


def _apart(first: Sequence[Box], every: Sequence[Box]) -> list[list[Box]]:
    """`first`, then those of `every` that are not among them; without groups that are empty."""
    known = set(first)
    groups = [[*first], [box for box in every if box not in known]]
    return [group for group in groups if group]


def _noun_scores(
    models: Models, locate: Locate, image: Tensor, boxes: Sequence[Box], nouns: Sequence[str]
) -> list[float | None]:
    """The best noun's score for each box; None for all boxes where no noun changed on this side."""
    if not nouns:
        return [None] * len(boxes)
    pairs = [(box, noun) for box in boxes for noun in nouns]
    values = models.need_blip.score(image, [box for box, _ in pairs], [noun for _, noun in pairs], locate.noun_kind)
    return [best(values[start : start + len(nouns)]) for start in range(0, len(values), len(nouns))]
