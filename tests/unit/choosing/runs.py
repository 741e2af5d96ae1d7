"""Made-up captions that run through `method` under a profile, and the rows that a store would hold of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from imgdiffd.job import ItemState
from imgdiffd.method.advance import Step, Subject, advance
from imgdiffd.method.filters import judge_area, judge_crops, judge_texts, left_image
from imgdiffd.method.messages import (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    PREVIEW_COSINE,
    Candidate,
    CompareOutput,
    ContrastOutput,
    DescribeOutput,
    Description,
    Difference,
    GenerateOutput,
    LocateOutput,
    Rendered,
    RenderOutput,
    RewriteOutput,
    Screened,
    ScreenOutput,
    StageOutput,
    VetOutput,
)
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal_messages import Scores
from imgdiffd.method.reuse import fingerprint
from imgdiffd.pipeline import Stage
from imgdiffd.store import ItemMark, ScoredItem, ScoredRegion

SIZE = 40
Key = tuple[object, ...]  # one output of a stage, with all that it depends on


@dataclass(frozen=True)
class Told:
    """What the models say of a box, if they are asked."""

    text1: str
    text2: str
    scores: Scores
    difference: str
    answer: str
    natural: Scores


@dataclass(frozen=True)
class World:
    """What the models say of a caption, if they are asked: `answers` with their tokens by attempt."""

    caption: str
    caption_tokens: int
    answers: Sequence[tuple[str, int]]
    pair: Scores
    preview: Scores
    answer: str
    natural: Scores
    boxes: Sequence[tuple[Candidate, Told]]


@dataclass
class Run:
    """A caption's way under a profile: every output that was needed, by stage, and what is stored of it."""

    world: World
    profile: Profile
    most: int = 1000  # outputs
    needed: list[tuple[Stage, frozenset[Key]]] = field(default_factory=list)
    made: set[Key] = field(default_factory=set)
    rewrites: list[tuple[int, RewriteOutput, str]] = field(default_factory=list)
    boxes: list[tuple[Candidate, str]] | None = None
    regions: dict[int, ScoredRegion] = field(default_factory=dict)
    kept: tuple[int, ...] = ()
    pair: Scores = field(default_factory=dict)
    painted: bool = False
    answer: str = ""
    at: Step = field(default_factory=lambda: Step(1, Stage.REWRITE, ItemState.READY, 1))

    def go(self) -> "Run":
        """Run to the end, or for `most` outputs."""
        while self.at.state is ItemState.READY and self.most:
            self.most -= 1
            stage = self.at.stage
            output = self._output(stage)
            subject = Subject(1, stage, self.at.attempt, self.world.caption, SIZE, SIZE, self.kept)
            self.at = advance(subject, output, self.profile)
            self._keep(stage, subject, output)
        return self

    def _need(self, stage: Stage, *keys: Key, made: Sequence[Key] = ()) -> None:
        mark = (fingerprint(self.profile, stage), stage)
        self.needed.append((stage, frozenset((*mark, *key) for key in keys)))
        self.made.update((*mark, *key) for key in (*keys, *made))

    def _output(self, stage: Stage) -> StageOutput:
        ways = {
            Stage.REWRITE: self._rewrite,
            Stage.GENERATE: self._generate,
            Stage.COMPARE: self._compare,
            Stage.VET: self._vet,
            Stage.LOCATE: self._locate,
            Stage.DESCRIBE: self._describe,
        }
        return ways[stage]() if stage in ways else self._finish(stage)

    def _compare(self) -> CompareOutput:
        self._need(Stage.COMPARE, (self.at.attempt,))
        return CompareOutput(1, self.world.pair)

    def _vet(self) -> VetOutput:
        self._need(Stage.VET, (self.at.attempt,))
        return VetOutput(1, self.world.answer, self.world.natural)

    def _finish(self, stage: Stage) -> StageOutput:
        attempt = self.at.attempt
        regions = [self.regions[number] for number in self.kept]
        sides = [left_image(self.profile, self.world.caption, attempt, region.number) for region in regions]
        self._need(stage, *((region.candidate, side) for region, side in zip(regions, sides, strict=True)))
        told = [(region.number, self.world.boxes[region.candidate][1]) for region in regions]
        if stage is Stage.CONTRAST:
            return ContrastOutput(1, tuple(Difference(number, each.difference) for number, each in told))
        if stage is Stage.SCREEN:
            return ScreenOutput(1, tuple(Screened(number, each.answer, each.natural) for number, each in told))
        return RenderOutput(1, tuple(Rendered(number, "left", "right") for number, _ in told))

    def _rewrite(self) -> RewriteOutput:
        world, attempt = self.world, self.at.attempt
        if world.caption_tokens > self.profile.rewrite.max_caption_tokens:
            self._need(Stage.REWRITE, ("tokens",))
            return RewriteOutput(1, None, False, world.caption_tokens, 0, 7)
        self._need(Stage.REWRITE, ("tokens",), (attempt,))
        text, tokens = world.answers[(attempt - 1) % len(world.answers)]
        return RewriteOutput(1, text, False, world.caption_tokens, tokens, 7)

    def _generate(self) -> GenerateOutput:
        scores = self.world.preview
        output = GenerateOutput(1, "1.png", "2.png", SIZE, SIZE, 7, scores)
        whole = Subject(1, Stage.GENERATE, self.at.attempt, self.world.caption)
        self.painted = advance(whole, output, self.profile).verdict.passed
        self._need(Stage.GENERATE, (self.at.attempt,), *([("images", self.at.attempt)] if self.painted else []))
        return output if self.painted else replace(output, image1=None, image2=None)

    def _locate(self) -> LocateOutput:
        everything, locate, attempt = self.profile.scores == "all", self.profile.locate, self.at.attempt
        keys: list[Key] = [(attempt,)]
        made: list[Key] = []
        found = []
        for number, (box, _) in enumerate(self.world.boxes):
            size = judge_area(box.box, SIZE, SIZE, locate)
            sized = size.passed or (locate.area_test == "last" and size.reason != "box_degenerate")
            differs = sized and judge_crops(box.scores, locate).passed
            asked: list[Key] = [(attempt, number, "crops")] * sized + [(attempt, number, "nouns")] * differs
            keys += asked
            scores = dict(box.scores) if size.reason != "box_degenerate" else {}
            if everything:
                made += [(attempt, number, "crops"), (attempt, number, "nouns")]
            elif not differs:
                scores = {key: score for key, score in scores.items() if sized and key == CLIP_IMAGE_COSINE}
            found.append(Candidate(box.image, box.box, scores))
        self._need(Stage.LOCATE, *keys, made=made)
        return LocateOutput(1, tuple(found))

    def _describe(self) -> DescribeOutput:
        told = [self.world.boxes[self.regions[number].candidate][1] for number in self.kept]
        keys: list[Key] = []
        made: list[Key] = []
        texts = []
        for number, each in zip(self.kept, told, strict=True):
            candidate = self.regions[number].candidate
            spoken = bool(each.text1.strip() and each.text2.strip())
            differ = spoken and judge_texts(each.scores, self.profile.describe).passed
            keys += [(candidate,)] + [(candidate, "match")] * differ
            scores = each.scores if spoken else {}
            if self.profile.scores == "all":
                made.append((candidate, "match"))
            elif not differ:
                scores = {key: score for key, score in scores.items() if key == CLIP_TEXT_COSINE}
            texts.append(Description(number, each.text1, each.text2, scores))
        self._need(Stage.DESCRIBE, *keys, made=made)
        return DescribeOutput(1, tuple(texts))

    def _keep(self, stage: Stage, subject: Subject, output: StageOutput) -> None:
        match output:
            case RewriteOutput():
                self.rewrites.append((subject.attempt, output, self.at.parts[0].reason or ""))
            case GenerateOutput() | CompareOutput():
                self.pair |= output.scores
            case VetOutput():
                self.answer, self.pair = output.answer, self.pair | output.scores
            case LocateOutput():
                self.boxes = [
                    (box, part.reason or "") for box, part in zip(output.candidates, self.at.parts, strict=True)
                ]
                self.regions = {
                    region.index: ScoredRegion(
                        region.index, region.candidate, region.scores, "", "", 0, "", "", "", False
                    )
                    for region in self.at.regions
                }
                self.kept = tuple(self.regions)
            case DescribeOutput() | ContrastOutput() | ScreenOutput() | RenderOutput():
                self._keep_regions(output)

    def _keep_regions(self, output: DescribeOutput | ContrastOutput | ScreenOutput | RenderOutput) -> None:
        for each in output.regions:
            region = self.regions[each.index]
            match each:
                case Description():
                    left = (self.at.left or {}).get(each.index, 0)
                    scores = {**region.scores, **each.scores}
                    region = replace(region, text1=each.text1, text2=each.text2, scores=scores, left=left)
                case Difference():
                    region = replace(region, difference=each.text)
                case Screened():
                    region = replace(region, answer=each.answer, scores={**region.scores, **each.scores})
                case Rendered():
                    region = replace(region, sampled=True)
            self.regions[each.index] = region
        for number, part in zip(self.kept, self.at.parts, strict=True):
            self.regions[number] = replace(self.regions[number], reason=part.reason or "")
        self.kept = tuple(number for number in self.kept if not self.regions[number].reason)

    def rows(self, item: int, group: int) -> tuple[ItemMark, ScoredItem]:
        """What a store holds of the caption now."""
        at = self.at
        reason = (at.verdict.reason or "") if at.state is ItemState.REJECTED else ""
        mark = ItemMark(item, 1, group, bytes([item]) * 16, at.stage, at.state, at.attempt, reason, 0.0, 0.0)
        boxes = None
        if self.boxes is not None:
            boxes = tuple((box.image, box.box, box.scores, reason, "") for box, reason in self.boxes)
        size = SIZE if self.pair or self.painted else 0
        return mark, ScoredItem(
            item, self.world.caption, tuple(self.rewrites), size, size, self.painted, self.pair, self.answer, boxes,
            tuple(self.regions.values()),
        )  # fmt: skip


def first_lack(wanted: Run, had: Run) -> Stage | None:
    """The first stage of the run `wanted` that needs an output which the run `had` did not make."""
    return next((stage for stage, keys in wanted.needed if not keys <= had.made), None)


def preview_of(scores: Mapping[str, float], profile: Profile) -> Scores:
    """The preview's score where the profile asks for one."""
    return {PREVIEW_COSINE: scores[PREVIEW_COSINE]} if scores and profile.generate.abort.mode != "off" else {}
