"""Plausible results of the stages of object removal, computed from the inputs alone: no models.

They own the fake erasures: one object of each image goes for good, a second of image 2 leaves a trace.
"""

import io
from pathlib import Path

from PIL import Image, ImageDraw

from imgdiffd.images.files import erased_path, inside, removal_paths, write_whole
from imgdiffd.method.messages import CLIP_IMAGE_COSINE
from imgdiffd.method.profile import Bound, Profile
from imgdiffd.method.removal import erase_seed, erased_key, judge_inspection, original_key
from imgdiffd.method.removal_messages import (
    Box,
    EraseInput,
    EraseOutput,
    Erasure,
    FoundBox,
    Inspected,
    InspectInput,
    InspectOutput,
)

SIDE_PX = 64
_MARGIN = 0.05
_Colour = tuple[int, int, int]


def _beyond(bound: Bound, sign: int) -> float:
    return bound.value + sign * _MARGIN


class FakeRemovals:
    """Both stages over the image folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def erase(self, profile: Profile, entry: EraseInput) -> EraseOutput:
        """Paint over one object of image 1 and two of image 2; a third box of each has not changed."""
        changed = {CLIP_IMAGE_COSINE: _beyond(profile.removal.crop_cosine_below, -1)}
        found, erasures, files = [], [], {}
        for image, source, count in ((1, entry.image1, 1), (2, entry.image2, 2)):
            for index in range(count):
                box, erased = _box(index), erased_path(source, index)
                found.append(FoundBox(image, box, changed))
                seed = erase_seed(profile, entry, image, index)
                cosine = changed[CLIP_IMAGE_COSINE]
                erasures.append(Erasure(entry.item, image, index, box, SIDE_PX, cosine, source, erased, seed))
                files[erased] = self._painted(source, box, (seed & 255, 128, 128), None)
            found.append(FoundBox(image, _box(2), {CLIP_IMAGE_COSINE: 1.0}))
        write_whole(self._root, files)
        return EraseOutput(entry.item, tuple(erasures), tuple(found))

    def inspect(self, profile: Profile, entry: InspectInput) -> InspectOutput:
        """The first object of each image is gone, others are still there."""
        objects = []
        files = {}
        for erasure in entry.erasures:
            kind, text = profile.removal.match_kind, f"object {erasure.index} of image {erasure.image}"
            left = _beyond(profile.removal.erased_below, -1 if erasure.index == 0 else 1)
            scores = {original_key(kind): _beyond(profile.removal.original_above, 1), erased_key(kind): left}
            paths = removal_paths(erasure.source, erasure.index)
            if judge_inspection(text, scores, profile.removal).passed:
                for path, image in zip(paths, (erasure.source, erasure.erased), strict=True):
                    files[path] = self._painted(image, erasure.box, None, (255, 0, 0))
                objects.append(Inspected(erasure.image, erasure.index, text, scores, *paths))
            else:
                objects.append(Inspected(erasure.image, erasure.index, text, scores))
        write_whole(self._root, files)
        return InspectOutput(entry.item, tuple(objects))

    def _painted(self, source: str, box: Box, fill: _Colour | None, outline: _Colour | None) -> bytes:
        with Image.open(inside(self._root, source)) as opened:
            image = opened.convert("RGB")
        x1, y1, x2, y2 = box
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill, outline)
        data = io.BytesIO()
        image.save(data, "PNG")
        return data.getvalue()


def _box(place: int) -> Box:
    left = 4 + 20 * place
    return left, 20, left + 16, 40
