"""A world in which every score, text and seed follows from what a stage is given: many reasons to keep and to drop."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from imgdiffd.images.files import pair_paths, sample_paths
from imgdiffd.job import ItemState
from imgdiffd.method.advance import FIRST_ATTEMPT, Step, Subject, advance
from imgdiffd.method.filters import finishes_anyway, judge_area, judge_crops, judge_preview, judge_texts
from imgdiffd.method.messages import (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    PREVIEW_COSINE,
    YES_PROBABILITY,
    Box,
    Candidate,
    CompareInput,
    CompareOutput,
    ContrastInput,
    ContrastOutput,
    ContrastRegion,
    DescribeInput,
    DescribeOutput,
    Description,
    Difference,
    GenerateInput,
    GenerateOutput,
    LocateInput,
    LocateOutput,
    RegionInput,
    Rendered,
    RenderInput,
    RenderOutput,
    RenderRegion,
    RewriteInput,
    RewriteOutput,
    Scores,
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
from imgdiffd.method.replay import Replay, Stored, StoredPair, StoredRegion, replay
from imgdiffd.method.reuse import work_settings
from imgdiffd.pipeline import Stage, seed_of
from imgdiffd.testing.results import NOUNS

SIDE = 100
ITEM = 7


def drawn(*of: object) -> float:
    """A number from 0 to 1 that follows from what it is drawn for."""
    return int.from_bytes(hashlib.blake2b(repr(of).encode(), digest_size=6).digest(), "big") / 2**48


def _about(profile: Profile, stage: Stage) -> object:
    return sorted((key, repr(value)) for key, value in work_settings(profile, stage).items())


class World:
    """Answers a caption's stages. It knows what an item's file names stand for, so that two items may have one pair."""

    def __init__(self, caption: str) -> None:
        self.caption = caption

    def answer(self, given: StageInput, profile: Profile, attempt: int) -> StageOutput:
        """What the stage gives; only the profile's work settings have a say in it, and which scores it wants."""
        about = (self.caption, attempt, _about(profile, Stage(given.kind)))
        match given:
            case RewriteInput():
                return self._rewrite(given, profile, about)
            case GenerateInput():
                return self._generate(given, profile, about)
            case CompareInput():
                return CompareOutput(given.item, {CLIP_IMAGE_COSINE: 0.8 + 0.2 * drawn("is", about)})
            case VetInput():
                return VetOutput(given.item, *self._judged(about))
            case LocateInput():
                return self._locate(given, profile, about)
        return self._of_regions(given, profile, about)

    def _of_regions(self, given: StageInput, profile: Profile, about: object) -> StageOutput:
        match given:
            case DescribeInput():
                regions = (self._described(each, profile, (about, each.box)) for each in given.regions)
                return DescribeOutput(given.item, tuple(regions))
            case ContrastInput():
                said = (
                    Difference(each.index, f"{each.box} {each.text1} {each.text2} {each.left} {drawn(about)}")
                    for each in given.regions
                )
                return ContrastOutput(given.item, tuple(said))
            case ScreenInput():
                judged = (Screened(each.index, *self._judged((about, each.box, each.left))) for each in given.regions)
                return ScreenOutput(given.item, tuple(judged))
            case RenderInput():
                made = (Rendered(each.index, *sample_paths(given.image1, each.index)) for each in given.regions)
                return RenderOutput(given.item, tuple(made))
        raise AssertionError(given)

    def _rewrite(self, given: RewriteInput, profile: Profile, about: object) -> RewriteOutput:
        seed = seed_of(profile.seed, given.caption, given.attempt, "rewrite")
        tokens = len(given.caption.split()) + 2
        if tokens > profile.rewrite.max_caption_tokens:
            return RewriteOutput(given.item, None, False, tokens, 0, seed)
        text = given.caption
        if drawn("answers", about) < 0.8:
            text = text.replace("cat", NOUNS[1 + int(drawn("noun", about) * 8)])
        return RewriteOutput(given.item, text, False, tokens, tokens + int(6 * drawn("more", about)), seed)

    def _generate(self, given: GenerateInput, profile: Profile, about: object) -> GenerateOutput:
        abort, seed = profile.generate.abort, seed_of(profile.seed, given.caption1, given.attempt, "generate")
        scores = Scores() if abort.mode == "off" else {PREVIEW_COSINE: 0.7 + 0.3 * drawn("preview", about)}
        finishes = finishes_anyway(profile, given.caption1, given.attempt)
        if not judge_preview(scores.get(PREVIEW_COSINE), abort, finishes=finishes).passed:
            return GenerateOutput(given.item, None, None, SIDE, SIDE, seed, scores)
        return GenerateOutput(given.item, *pair_paths(given.item, given.attempt), SIDE, SIDE, seed, scores)

    def _locate(self, given: LocateInput, profile: Profile, about: object) -> LocateOutput:
        locate, found = profile.locate, []
        for number in range(int(9 * drawn("count", about))):
            x, y = (int(60 * drawn(axis, number, about)) for axis in "xy")
            size = int(50 * drawn("size", number, about))
            box: Box = (x, y, x + size, y + size)
            scores: Scores = {}
            area = judge_area(box, SIDE, SIDE, locate)
            every = profile.scores == "all" and area.reason != "box_degenerate"
            if every or area.passed or (locate.area_test == "last" and area.reason != "box_degenerate"):
                scores[CLIP_IMAGE_COSINE] = 0.7 + 0.3 * drawn("crops", box, about)
                if every or judge_crops(scores, locate).passed:
                    for side, nouns in ((1, given.nouns1), (2, given.nouns2)):
                        if nouns:
                            scores[noun_key(locate.noun_kind, side)] = 0.6 * drawn("noun", side, box, about)
            found.append(Candidate(1 + number % 2, box, scores))
        return LocateOutput(given.item, tuple(found))

    @staticmethod
    def _described(region: RegionInput, profile: Profile, about: object) -> Description:
        describe = profile.describe
        texts = [f"a {NOUNS[int(drawn(side, about) * 9)]}" if drawn("?", side, about) > 0.05 else "" for side in "12"]
        scores: Scores = {}
        if all(texts):
            scores[CLIP_TEXT_COSINE] = 0.6 + 0.4 * drawn("texts", about)
        if profile.scores == "all" or judge_texts(scores, describe).passed:
            for side in (1, 2):
                if texts[side - 1]:
                    scores[match_key(describe.match_kind, side)] = 0.2 + 0.6 * drawn("match", side, about)
        return Description(region.index, texts[0], texts[1], scores)

    @staticmethod
    def _judged(about: object) -> tuple[str, Scores]:
        score = drawn("natural", about)
        return ("Yes" if score > 0.4 else "No", {YES_PROBABILITY: score})


@dataclass
class Run:
    """An item on its way: every step that was taken, and all that a database would hold of it."""

    world: World
    profile: Profile
    item: int = ITEM
    gone: frozenset[str] = frozenset()
    subject: Subject = field(init=False)
    taken: list[tuple[StageOutput, Step]] = field(default_factory=list)
    asked: list[Stage] = field(default_factory=list)
    ended: Step | None = None
    stored: Stored = field(init=False)
    _caption2: tuple[str, tuple[str, ...], tuple[str, ...]] = ("", (), ())
    _boxes: dict[int, Box] = field(default_factory=dict)
    _left: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.subject = Subject(self.item, Stage.REWRITE, FIRST_ATTEMPT, self.world.caption)
        self.stored = Stored(self.item, self.world.caption, self.profile, FIRST_ATTEMPT, {})

    def finish(self, most: int | None = None) -> "Run":
        """Ask the world until the item has ended, or `most` times."""
        while self.ended is None and (most is None or len(self.asked) < most):
            self.asked.append(self.subject.stage)
            self.take(self.world.answer(self._given(), self.profile, self.subject.attempt))
        return self

    def take(self, output: StageOutput) -> None:
        """Decide about one output and keep it."""
        step = advance(self.subject, output, self.profile)
        self._keep(output, step)
        self.taken.append((output, step))
        if step.state is not ItemState.READY:
            self.ended = step
        regions = self.subject.regions
        if step.regions:
            self._boxes = {region.index: region.box for region in step.regions}
            regions = tuple(self._boxes)
        elif regions:
            regions = tuple(i for i, verdict in zip(regions, step.parts, strict=True) if verdict.passed)
        size = (SIDE, SIDE) if self.stored.pair and self.stored.pair.width else (0, 0)
        self.subject = Subject(self.item, step.stage, step.attempt, self.world.caption, *size, regions)

    def _given(self) -> StageInput:
        stage, item, attempt = self.subject.stage, self.item, self.subject.attempt
        image1, image2 = self._images()
        match stage:
            case Stage.REWRITE:
                return RewriteInput(item, self.world.caption, attempt)
            case Stage.GENERATE:
                return GenerateInput(item, self.world.caption, self._caption2[0], attempt)
            case Stage.LOCATE:
                return LocateInput(item, image1, image2, *self._caption2[1:])
            case Stage.COMPARE | Stage.VET:
                return (CompareInput if stage is Stage.COMPARE else VetInput)(item, image1, image2)
        return self._regions_given(image1, image2)

    def _images(self) -> tuple[str, str]:
        return (self.stored.pair.image1, self.stored.pair.image2) if self.stored.pair else ("", "")

    def _regions_given(self, image1: str, image2: str) -> StageInput:
        chosen = [(index, self._boxes[index]) for index in self.subject.regions]
        if self.subject.stage is Stage.DESCRIBE:
            return DescribeInput(self.item, image1, image2, tuple(RegionInput(*each) for each in chosen))
        if self.subject.stage is Stage.CONTRAST:
            texts = {region.box: (region.text1, region.text2) for region in self.stored.regions}
            told = (ContrastRegion(index, box, *texts[box], self._left[index]) for index, box in chosen)
            return ContrastInput(self.item, image1, image2, tuple(told))
        boxed = tuple(RenderRegion(index, box, self._left[index]) for index, box in chosen)
        return (ScreenInput if self.subject.stage is Stage.SCREEN else RenderInput)(self.item, image1, image2, boxed)

    def _keep(self, output: StageOutput, step: Step) -> None:
        stored, pair = self.stored, self.stored.pair or StoredPair()
        match output:
            case RewriteOutput():
                attempt = self.subject.attempt
                rewrites = {**stored.rewrites, attempt: output}
                self.stored = replace(stored, rewrites=rewrites, attempt=attempt)
                if step.rewritten:
                    self._caption2 = step.rewritten
                    self.stored = replace(self.stored, pair=StoredPair())
            case GenerateOutput():
                images = output.image1 or "", output.image2 or ""
                painted = StoredPair(*images, output.width, output.height, output.seed, dict(output.scores))
                self.stored = replace(stored, pair=painted)
            case CompareOutput():
                self.stored = replace(stored, pair=replace(pair, scores=pair.scores | output.scores))
            case VetOutput():
                scores = pair.scores | output.scores
                self.stored = replace(stored, pair=replace(pair, scores=scores, answer=output.answer))
            case LocateOutput():
                chosen = tuple(StoredRegion(each.box, dict(each.scores)) for each in step.regions)
                self.stored = replace(stored, candidates=output.candidates, regions=chosen)
            case _:
                self._keep_told(output, step)

    def _keep_told(self, output: StageOutput, step: Step) -> None:
        match output:
            case DescribeOutput():
                self._left = dict(step.left or {})
                for said in output.regions:
                    left = self._left.get(said.index, 0)
                    self._add(said.index, said.scores, text1=said.text1, text2=said.text2, left=left)
            case ContrastOutput():
                for told in output.regions:
                    self._add(told.index, difference=told.text)
            case ScreenOutput():
                for judged in output.regions:
                    self._add(judged.index, judged.scores, answer=judged.answer)
            case RenderOutput():
                for made in output.regions:
                    self._add(made.index, images=(made.left_image, made.right_image))

    def _add(self, index: int, scores: Scores | None = None, **more: Any) -> None:
        box = self._boxes[index]
        regions = tuple(
            replace(each, scores=each.scores | (scores or {}), **more) if each.box == box else each
            for each in self.stored.regions
        )
        self.stored = replace(self.stored, regions=regions)


def taken_over(
    stored: Stored, world: World, profile: Profile, gone: frozenset[str] = frozenset()
) -> tuple[Replay, Run]:
    """What a replay gives, and the same caption's run that goes on from there."""
    found, run = replay(stored, profile, gone), Run(world, profile)
    for _, output in found.outputs:
        run.take(output)
    assert (run.subject.stage, run.subject.attempt) == (found.stage, found.attempt)
    assert (run.ended is None) == (found.state is ItemState.READY)
    return found, run.finish()
