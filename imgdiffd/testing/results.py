"""Plausible results of every stage, computed from the inputs alone: same input, same output, no models.

They own the fake captions, tiny PNG files and scores that pass the profile's filters for most captions; they do not
know processes or mishaps. An image carries its captions in PNG text, so that later stages can name its objects.
"""

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from imgdiffd.images.files import inside, pair_paths, sample_paths, write_whole
from imgdiffd.method.messages import (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    YES_PROBABILITY,
    Box,
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
from imgdiffd.method.profile import Bound, Profile
from imgdiffd.pipeline import seed_of
from imgdiffd.testing.removals import FakeRemovals

SIDE_PX = 64
NOUNS = ("cat", "dog", "horse", "car", "boat", "chair", "tree", "bird", "clock", "apple", "lamp", "bench")
DISSIMILAR_ONE_IN = 8  # so many pairs fail the image-similarity filter
UNNATURAL_WORD = "impossible"  # a pair of whose caption this is a word looks unnatural to the judge
_MARGIN = 0.05


def _low(bound: Bound) -> float:
    return bound.value - _MARGIN


def _high(bound: Bound) -> float:
    return bound.value + _MARGIN


def _tokens(text: str) -> int:
    return len(text.split()) + 2


class FakeStages:
    """All stages over the image folder `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._captions = lru_cache(maxsize=1024)(self._read_captions)
        self._removals = FakeRemovals(root)

    def run(self, profile: Profile, inputs: Sequence[StageInput]) -> tuple[StageOutput, ...]:
        """One output per input, of the stage that the input belongs to."""
        return tuple(self._answer(profile, entry) for entry in inputs)

    def caption_of(self, image: str) -> str:
        """The first caption of the pair that image `image` is of. Raises OSError where there is none."""
        return self._captions(image)[0]

    def _read_captions(self, image1: str) -> tuple[str, str]:
        with Image.open(inside(self._root, image1)) as image:
            return str(image.info["caption1"]), str(image.info["caption2"])

    def _nouns(self, image1: str) -> tuple[str, str]:
        caption1, caption2 = self._captions(image1)
        return caption1.split()[-1].strip(".,!?").lower(), caption2.split()[-1].strip(".,!?").lower()

    def _answer(self, profile: Profile, entry: StageInput) -> StageOutput:
        answers: dict[str, Callable[..., StageOutput]] = {
            "rewrite": self._rewrite,
            "generate": self._generate,
            "compare": self._compare,
            "vet": self._vet,
            "locate": self._locate,
            "describe": self._describe,
            "contrast": self._contrast,
            "render": self._render,
            "erase": self._removals.erase,
            "inspect": self._removals.inspect,
        }
        return answers[entry.kind](profile, entry)

    def _rewrite(self, profile: Profile, entry: RewriteInput) -> RewriteOutput:
        """Replace the last word by a noun that the caption lacks."""
        seed = seed_of(profile.seed, entry.caption, entry.attempt, "rewrite")
        tokens = _tokens(entry.caption)
        if tokens > profile.rewrite.max_caption_tokens:
            return RewriteOutput(entry.item, None, False, tokens, 0, seed)
        words = entry.caption.split()
        known = {word.strip(".,!?").lower() for word in words}
        choice = [noun for noun in NOUNS if noun not in known]
        last = words[-1] if words else ""
        ending = last[len(last.rstrip(".,!?")) :]
        answer = " ".join([*words[:-1], choice[seed % len(choice)] + ending])
        return RewriteOutput(entry.item, answer, False, tokens, _tokens(answer), seed)

    def _generate(self, profile: Profile, entry: GenerateInput) -> GenerateOutput:
        """Two flat images that differ in one square; their captions go into the PNG's text."""
        seed = seed_of(profile.seed, entry.caption1, entry.attempt, "generate")
        paths = pair_paths(entry.item, entry.attempt)
        ground = (seed >> 8 & 255, seed >> 16 & 255, seed >> 24 & 255)
        about = PngInfo()
        about.add_itxt("caption1", entry.caption1)
        about.add_itxt("caption2", entry.caption2)
        files = {}
        for path, colour in zip(paths, ((200, 30, 30), (30, 30, 200)), strict=True):
            image = Image.new("RGB", (SIDE_PX, SIDE_PX), ground)
            ImageDraw.Draw(image).rectangle(_object_box(0), fill=colour)
            files[path] = _png(image, about)
        write_whole(self._root, files)
        return GenerateOutput(entry.item, *paths, SIDE_PX, SIDE_PX, seed)

    def _compare(self, profile: Profile, entry: CompareInput) -> CompareOutput:
        caption1, _ = self._captions(entry.image1)
        inside_band = seed_of(profile.seed, caption1, 0, "fake compare") % DISSIMILAR_ONE_IN > 0
        middle = (profile.pair.above.value + profile.pair.below.value) / 2
        return CompareOutput(entry.item, {CLIP_IMAGE_COSINE: middle if inside_band else _low(profile.pair.above)})

    def _vet(self, profile: Profile, entry: VetInput) -> VetOutput:
        caption1, _ = self._captions(entry.image1)
        natural = UNNATURAL_WORD not in caption1.split()
        return VetOutput(entry.item, "Yes" if natural else "No.", {YES_PROBABILITY: 0.9 if natural else 0.1})

    def _locate(self, profile: Profile, entry: LocateInput) -> LocateOutput:
        """Two boxes that pass, one from each image, and one that did not change."""
        locate = profile.locate
        changed = {CLIP_IMAGE_COSINE: _low(locate.crop_cosine_below)}
        for side, nouns in ((1, entry.nouns1), (2, entry.nouns2)):
            if nouns:
                changed[noun_key(locate.noun_kind, side)] = _high(locate.noun_above)
        less_changed = {**changed, CLIP_IMAGE_COSINE: _low(locate.crop_cosine_below) + _MARGIN / 2}
        unchanged = {CLIP_IMAGE_COSINE: 1.0}
        candidates = (
            Candidate(1, _object_box(0), changed),
            Candidate(2, _object_box(1), less_changed),
            Candidate(2, _object_box(2), unchanged),
        )
        return LocateOutput(entry.item, candidates)

    def _describe(self, profile: Profile, entry: DescribeInput) -> DescribeOutput:
        describe = profile.describe
        noun1, noun2 = self._nouns(entry.image1)
        scores = {CLIP_TEXT_COSINE: _low(describe.text_cosine_below)}
        scores |= {match_key(describe.match_kind, side): _high(describe.match_above) for side in (1, 2)}
        regions = [
            Description(region.index, f"a {noun1} at {region.box[:2]}", f"a {noun2} at {region.box[:2]}", scores)
            for region in entry.regions
        ]
        return DescribeOutput(entry.item, tuple(regions))

    def _contrast(self, profile: Profile, entry: ContrastInput) -> ContrastOutput:
        regions = []
        for region in entry.regions:
            left, right = (region.text1, region.text2) if region.left == 1 else (region.text2, region.text1)
            regions.append(Difference(region.index, f"The left image shows {left}, the right image {right}."))
        return ContrastOutput(entry.item, tuple(regions))

    def _render(self, profile: Profile, entry: RenderInput) -> RenderOutput:
        regions = []
        files = {}
        for region in entry.regions:
            paths = sample_paths(entry.image1, region.index)
            images = (entry.image1, entry.image2) if region.left == 1 else (entry.image2, entry.image1)
            for path, image in zip(paths, images, strict=True):
                with Image.open(inside(self._root, image)) as source:
                    drawn = source.convert("RGB")
                x1, y1, x2, y2 = region.box
                ImageDraw.Draw(drawn).rectangle((x1, y1, x2 - 1, y2 - 1), outline=(255, 0, 0))
                files[path] = _png(drawn)
            regions.append(Rendered(region.index, *paths))
        write_whole(self._root, files)
        return RenderOutput(entry.item, tuple(regions))


def _png(image: Image.Image, about: PngInfo | None = None) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", pnginfo=about)
    return data.getvalue()


def _object_box(place: int) -> Box:
    left = 4 + 20 * place
    return left, 20, left + 16, 40
