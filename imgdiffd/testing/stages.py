"""The stages of the fake worker: made-up results (`imgdiffd.testing.results`) with real image files.

The same input gives the same output. A generated PNG carries its captions as text for the later stages.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from imgdiffd.images.files import erased_path, inside, pair_paths, removal_paths, sample_paths, write_whole
from imgdiffd.method.filters import finishes_anyway, judge_preview
from imgdiffd.method.messages import (
    PREVIEW_COSINE,
    Box,
    CompareInput,
    GenerateInput,
    GenerateOutput,
    RenderInput,
    RenderOutput,
    ScreenInput,
    StageInput,
    StageOutput,
    VetInput,
)
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal_messages import EraseOutput, Erasure, InspectInput, InspectOutput
from imgdiffd.pipeline import seed_of
from imgdiffd.testing.results import BOXES, IMAGE_PX, result

DISSIMILAR_ONE_IN = 8  # one pair in this many fails the image-similarity filter
UNNATURAL_WORD = "impossible"  # a pair whose caption has this word looks unnatural to the judge
OBJECTS = (1, 2)  # how many are erased from image 1 and from image 2
RED = (255, 0, 0)
Files = dict[str, bytes]


class FakeStages:
    """All stages, reading and writing images in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unwritten: Files = {}
        self._captions = lru_cache(maxsize=1024)(self._read_captions)

    def run(self, profile: Profile, inputs: Sequence[StageInput]) -> tuple[StageOutput, ...]:
        """One output per input, whose type decides the stage; `take_writes` has the files that outputs name."""
        self._unwritten = {}
        return tuple(self._answer(profile, entry) for entry in inputs)

    def take_writes(self) -> Callable[[], None]:
        """What makes the files of the last run durable, in any thread. Raises OSError."""
        files, self._unwritten = self._unwritten, {}
        return lambda: write_whole(self._root, files) if files else None

    def caption_of(self, image: str) -> str:
        """The first caption of the pair whose image 1 is at `image`. Raises OSError if there is no such file."""
        return self._captions(image)[0]

    def _read_captions(self, image1: str) -> tuple[str, str]:
        with Image.open(inside(self._root, image1)) as image:
            return str(image.info["caption1"]), str(image.info["caption2"])

    def _answer(self, profile: Profile, entry: StageInput) -> StageOutput:
        output = result(entry, profile, self._passes(profile, entry), objects=OBJECTS)
        files: Files = {}
        if isinstance(entry, GenerateInput) and isinstance(output, GenerateOutput):
            output = self._painted(profile, entry, output, files)
        elif isinstance(entry, RenderInput) and isinstance(output, RenderOutput):
            output = self._rendered(entry, output, files)
        elif isinstance(output, EraseOutput):
            output = replace(output, erasures=tuple(self._erased(each, files) for each in output.erasures))
        elif isinstance(entry, InspectInput) and isinstance(output, InspectOutput):
            output = self._inspected(entry, output, files)
        self._unwritten |= files
        return output

    def _passes(self, profile: Profile, entry: StageInput) -> bool:
        if isinstance(entry, CompareInput):
            return self._is_alike(profile, self.caption_of(entry.image1))
        if isinstance(entry, VetInput | ScreenInput):
            return UNNATURAL_WORD not in self.caption_of(entry.image1).split()
        return True

    def _painted(self, profile: Profile, entry: GenerateInput, output: GenerateOutput, files: Files) -> GenerateOutput:
        """Two flat images that differ in one square."""
        seed = seed_of(profile.seed, entry.caption1, entry.attempt, "generate")
        ground = (seed >> 8 & 255, seed >> 16 & 255, seed >> 24 & 255)
        about = PngInfo()
        about.add_itxt("caption1", entry.caption1)
        about.add_itxt("caption2", entry.caption2)
        if (score := self._preview(profile, entry)) is not None:
            output = replace(output, scores={PREVIEW_COSINE: score})
        finishes = finishes_anyway(profile, entry.caption1, entry.attempt)
        if not judge_preview(score, profile.generate.abort, finishes=finishes).passed:
            return replace(output, image1=None, image2=None, seed=seed)
        paths = pair_paths(entry.item, entry.attempt)
        for path, colour in zip(paths, ((200, 30, 30), (30, 30, 200)), strict=True):
            image = Image.new("RGB", (IMAGE_PX, IMAGE_PX), ground)
            ImageDraw.Draw(image).rectangle(BOXES[0], fill=colour)
            files[path] = _png(image, about)
        return replace(output, image1=paths[0], image2=paths[1], seed=seed)

    def _preview(self, profile: Profile, entry: GenerateInput) -> float | None:
        """From 0.7 on for a pair that will be alike enough, else up to 0.72; None without previews."""
        if profile.generate.abort.mode == "off":
            return None
        spread = seed_of(profile.seed, entry.caption1, entry.attempt, "fake preview") / 2**63
        return 0.7 + 0.28 * spread if self._is_alike(profile, entry.caption1) else 0.4 + 0.32 * spread

    @staticmethod
    def _is_alike(profile: Profile, caption: str) -> bool:
        return seed_of(profile.seed, caption, 0, "fake compare") % DISSIMILAR_ONE_IN > 0

    def _rendered(self, entry: RenderInput, output: RenderOutput, files: Files) -> RenderOutput:
        regions = []
        for region, made in zip(entry.regions, output.regions, strict=True):
            paths = sample_paths(entry.image1, region.index)
            sides = (entry.image1, entry.image2) if region.left == 1 else (entry.image2, entry.image1)
            for path, source in zip(paths, sides, strict=True):
                files[path] = self._drawn(source, region.box, outline=RED)
            regions.append(replace(made, left_image=paths[0], right_image=paths[1]))
        return replace(output, regions=tuple(regions))

    def _erased(self, erasure: Erasure, files: Files) -> Erasure:
        path = erased_path(erasure.source, erasure.index)
        files[path] = self._drawn(erasure.source, erasure.box, fill=(erasure.seed & 255, 128, 128))
        return replace(erasure, erased=path)

    def _inspected(self, entry: InspectInput, output: InspectOutput, files: Files) -> InspectOutput:
        objects = []
        for erasure, made in zip(entry.erasures, output.objects, strict=True):
            if not made.with_image:
                objects.append(made)
                continue
            paths = removal_paths(erasure.source, erasure.index)
            for path, source in zip(paths, (erasure.source, erasure.erased), strict=True):
                files[path] = self._drawn(source, erasure.box, outline=RED)
            objects.append(replace(made, with_image=paths[0], without_image=paths[1]))
        return replace(output, objects=tuple(objects))

    def _drawn(
        self,
        source: str,
        box: Box,
        fill: tuple[int, int, int] | None = None,
        outline: tuple[int, int, int] | None = None,
    ) -> bytes:
        with Image.open(inside(self._root, source)) as opened:
            image = opened.convert("RGB")
        x1, y1, x2, y2 = box
        ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), fill, outline)
        return _png(image)


def _png(image: Image.Image, about: PngInfo | None = None) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=about)
    return data.getvalue()
