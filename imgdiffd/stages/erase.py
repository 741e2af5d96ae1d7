"""erase: a pair → each picture without the things that only it holds, one picture a thing (paper, section 16).

It owns which masks are filled with which seed; which boxes hold a thing is decided in `imgdiffd.method.removal`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from imgdiffd.images.files import erased_path
from imgdiffd.kernels.crop import CropPlan, crop
from imgdiffd.method.messages import CLIP_IMAGE_COSINE
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal import choose_targets, erase_seed
from imgdiffd.method.removal_messages import Box, EraseInput, EraseOutput, Erasure, FoundBox, Scores
from imgdiffd.models.eraser import Hole
from imgdiffd.models.loading import Models
from imgdiffd.stages.images import Pictures
from imgdiffd.stages.scores import cosines, put


def erase(
    models: Models, profile: Profile, inputs: Sequence[EraseInput], pictures: Pictures
) -> tuple[EraseOutput, ...]:
    """Find the things of every pair, erase each alone, and write the new pictures; they are durable on return.

    A picture without masks yields nothing, and costs its pair and its mates nothing.
    """
    removal = profile.removal
    pairs = [
        [at_removal_size(picture, removal.picture_px) for picture in pictures.read_pair(entry.image1, entry.image2)]
        for entry in inputs
    ]
    found = models.need_segmenter.masks([picture for pair in pairs for picture in pair], removal)
    holes: list[Hole] = []
    erasures: list[list[Erasure]] = []
    seen: list[list[FoundBox]] = []
    for number, (entry, pair) in enumerate(zip(inputs, pairs, strict=True)):
        erasures.append([])
        seen.append([])
        for image, source in ((1, entry.image1), (2, entry.image2)):
            masked = found[2 * number + image - 1]
            boxes = [box for box, _ in masked]
            vectors = [models.need_clip.embed_crops(picture, boxes) for picture in pair] if boxes else []
            alike = cosines(vectors[0], vectors[1]) if boxes else []
            seen[-1] += (_found(image, box, cosine) for box, cosine in zip(boxes, alike, strict=True))
            for index, target in enumerate(choose_targets(boxes, alike, removal)):
                seed = erase_seed(profile, entry, image, index)
                mask = masked[target.candidate][1].to(pair[image - 1].device)
                holes.append(Hole(pair[image - 1], mask, seed))
                erased = erased_path(source, index)
                size = removal.picture_px
                erasures[-1].append(
                    Erasure(entry.item, image, index, target.box, size, target.cosine, source, erased, seed)
                )
    without = models.need_eraser.erase(holes, removal)
    names = [each.erased for made in erasures for each in made]
    pictures.write(dict(zip(names, without, strict=True)))
    return tuple(
        EraseOutput(entry.item, tuple(made), tuple(boxes))
        for entry, made, boxes in zip(inputs, erasures, seen, strict=True)
    )


def _found(image: int, box: Box, cosine: float) -> FoundBox:
    scores: Scores = {}
    put(scores, CLIP_IMAGE_COSINE, cosine)
    return FoundBox(image, box, scores)


def at_removal_size(picture: Tensor, picture_px: int) -> Tensor:
    """`picture` (uint8 [3, H, W]) at `picture_px` squared, resized as Pillow does it where it is not that already."""
    height, width = picture.shape[1:]
    if (height, width) == (picture_px, picture_px):
        return picture
    plan = CropPlan(picture_px, picture_px, "squash", "bicubic", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return crop(picture, [(0, 0, width, height)], plan)[0].to(torch.uint8)
