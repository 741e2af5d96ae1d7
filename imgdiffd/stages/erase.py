"""erase: a pair → its images without the objects that only one has, one image per object (paper, section 16)."""

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
from imgdiffd.stages.images import Images
from imgdiffd.stages.scores import cosines, put


def erase(models: Models, profile: Profile, inputs: Sequence[EraseInput], images: Images) -> tuple[EraseOutput, ...]:
    """Find the objects of every pair, erase each alone, and write the new images, as `Images.write` does.

    An image without masks yields nothing; its pair and its batch mates are unaffected. Nor does a pair whose nouns the
    profile does not accept, which no model looks at.
    """
    either = profile.removal.noun_rule == "any"
    accepted = [entry for entry in inputs if either or (entry.nouns1 and entry.nouns2)]
    done = {output.item: output for output in _erase(models, profile, accepted, images)}
    return tuple(done.get(entry.item, EraseOutput(entry.item, (), nouns=False)) for entry in inputs)


def _erase(models: Models, profile: Profile, inputs: Sequence[EraseInput], images: Images) -> tuple[EraseOutput, ...]:
    removal = profile.removal
    pairs = [
        [at_removal_size(pixels, removal.picture_px) for pixels in images.read_pair(entry.image1, entry.image2)]
        for entry in inputs
    ]
    found = models.need_segmenter.masks([pixels for pair in pairs for pixels in pair], removal)
    holes: list[Hole] = []
    erasures: list[list[Erasure]] = []
    seen: list[list[FoundBox]] = []
    for number, (entry, pair) in enumerate(zip(inputs, pairs, strict=True)):
        erasures.append([])
        seen.append([])
        for image, source in ((1, entry.image1), (2, entry.image2)):
            masked = found[2 * number + image - 1]
            boxes = [box for box, _ in masked]
            vectors = [models.need_clip.embed_crops(pixels, boxes) for pixels in pair] if boxes else []
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
    images.write(dict(zip(names, without, strict=True)))
    return tuple(
        EraseOutput(entry.item, tuple(made), tuple(boxes))
        for entry, made, boxes in zip(inputs, erasures, seen, strict=True)
    )


def _found(image: int, box: Box, cosine: float) -> FoundBox:
    scores: Scores = {}
    put(scores, CLIP_IMAGE_COSINE, cosine)
    return FoundBox(image, box, scores)


def at_removal_size(image: Tensor, picture_px: int) -> Tensor:
    """`image` (uint8 [3, H, W]) at `picture_px` squared; resized as Pillow does where it has another size."""
    height, width = image.shape[1:]
    if (height, width) == (picture_px, picture_px):
        return image
    plan = CropPlan(picture_px, picture_px, "squash", "bicubic", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return crop(image, [(0, 0, width, height)], plan)[0].to(torch.uint8)
