"""Replays what is stored of a caption under another profile, up to the first stage whose output is not there."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from imgdiffd.job import ItemState
from imgdiffd.method.advance import FIRST_ATTEMPT, Step, Subject, advance
from imgdiffd.method.calibration import preview_at
from imgdiffd.method.filters import (
    finishes_anyway,
    judge_area,
    judge_crops,
    judge_preview,
    judge_texts,
)
from imgdiffd.method.messages import (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    PREVIEW_COSINE,
    YES_PROBABILITY,
    Box,
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
    Scores,
    Screened,
    ScreenOutput,
    StageOutput,
    VetOutput,
    match_key,
    noun_key,
)
from imgdiffd.method.profile import Profile
from imgdiffd.method.reuse import unchanged
from imgdiffd.pipeline import DEPTH, Stage

PAINTING = frozenset({Stage.REWRITE, Stage.GENERATE})  # an item that waits here needs a pair painted


@dataclass(frozen=True, slots=True)
class StoredPair:
    """A pair; it was painted if `width` is not 0, and given up halfway if it has no images then."""

    image1: str = ""
    image2: str = ""
    width: int = 0
    height: int = 0
    seed: int = 0
    scores: Scores = field(default_factory=dict)
    answer: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """Both names, or none."""
        return tuple(filter(None, (self.image1, self.image2)))


@dataclass(frozen=True, slots=True)
class StoredRegion:
    """A chosen box, with what later stages added: '', 0 and () where they did not. `left` is 1 or 2."""

    box: Box
    scores: Scores
    text1: str = ""
    text2: str = ""
    left: int = 0
    difference: str = ""
    answer: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """All raw output that is stored of a caption and the profile it was made under.

    `attempt` is that of the pair; `candidates` are None where no boxes were sought.
    """

    item: int
    caption: str
    profile: Profile
    attempt: int
    rewrites: Mapping[int, RewriteOutput]
    pair: StoredPair | None = None
    candidates: tuple[Candidate, ...] | None = None
    regions: tuple[StoredRegion, ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """Where the item is once everything stored was replayed: it ended, or waits in `stage` for the first work missing.

    `outputs` are those replayed, in order, each with its attempt. They name the images of the stored item.
    """

    outputs: tuple[tuple[int, StageOutput], ...]
    stage: Stage
    state: ItemState
    attempt: int

    @property
    def paints(self) -> bool:
        """Whether its pair must be painted, again or for the first time."""
        return self.state is ItemState.READY and self.stage in PAINTING


def replay(stored: Stored, profile: Profile, gone: AbstractSet[str] = frozenset()) -> Replay:
    """Decide under `profile` with the raw output in `stored`, as `advance` decides; `gone` are the images not there.

    A stage's output counts as stored if nothing that it depends on differs between the two profiles and all that the
    stage would give for this item is there; else the item waits for that stage as a whole. One whose images are gone
    but needed waits to be painted again, from the same seed.
    """
    walk = _Walk(stored, profile, gone)
    outputs: list[tuple[int, StageOutput]] = []
    subject = Subject(stored.item, Stage.REWRITE, FIRST_ATTEMPT, stored.caption)
    while (output := walk.output_of(subject)) is not None:
        step = advance(subject, output, profile)
        outputs.append((subject.attempt, output))
        if step.state is not ItemState.READY:
            return Replay(tuple(outputs), step.stage, step.state, step.attempt)
        subject = walk.after(subject, step)
    waits = subject.stage
    if DEPTH[waits] > DEPTH[Stage.GENERATE] and stored.pair is not None and not gone.isdisjoint(stored.pair.images):
        waits = Stage.GENERATE
        outputs = [each for each in outputs if isinstance(each[1], RewriteOutput)]
    return Replay(tuple(outputs), waits, ItemState.READY, subject.attempt)


class _Walk:
    """Gives a subject its stored output, and the subject that follows from a step."""

    def __init__(self, stored: Stored, profile: Profile, gone: AbstractSet[str]) -> None:
        self._stored = stored
        self._profile = profile
        self._gone = gone
        self._same = unchanged(stored.profile, profile)
        self._by_box = {region.box: region for region in stored.regions}
        self._boxes: dict[int, Box] = {}
        self._left: Mapping[int, int] = {}
        self._nouns: tuple[Sequence[str], Sequence[str]] = ((), ())

    def after(self, subject: Subject, step: Step) -> Subject:
        """The item in its next stage."""
        if step.rewritten is not None:
            self._nouns = step.rewritten[1:]
        if step.left is not None:
            self._left = step.left
        regions = subject.regions
        if subject.stage is Stage.LOCATE:
            self._boxes = {region.index: region.box for region in step.regions}
            regions = tuple(self._boxes)
        elif regions:
            regions = tuple(index for index, verdict in zip(regions, step.parts, strict=True) if verdict.passed)
        size = (self._stored.pair.width, self._stored.pair.height) if self._stored.pair else (0, 0)
        return Subject(subject.item, step.stage, step.attempt, subject.caption, *size, regions)

    def output_of(self, subject: Subject) -> StageOutput | None:
        """What is stored of the subject's stage; None where that is not all that the stage would give."""
        stored, pair = self._stored, self._stored.pair
        if subject.stage not in self._same:
            return None
        if subject.stage is Stage.REWRITE:
            return self._rewrite(subject)
        if pair is None or not pair.width or subject.attempt != stored.attempt:
            return None
        found: StageOutput | None
        match subject.stage:
            case Stage.GENERATE:
                found = self._generate(pair)
            case Stage.COMPARE:
                scores = _only(pair.scores, CLIP_IMAGE_COSINE)
                found = CompareOutput(stored.item, scores) if scores else None
            case Stage.VET:
                scores = _only(pair.scores, YES_PROBABILITY)
                found = VetOutput(stored.item, pair.answer, scores) if pair.answer else None
            case Stage.LOCATE:
                found = self._locate(pair)
            case _:
                found = self._of_regions(subject)
        return found

    def _rewrite(self, subject: Subject) -> StageOutput | None:
        found = self._stored.rewrites.get(subject.attempt)
        if found is None:
            return None
        if found.caption_tokens > self._profile.rewrite.max_caption_tokens:  # it would not have been asked
            return replace(found, answer=None, truncated=False, answer_tokens=0)
        return None if found.answer is None else found

    def _generate(self, pair: StoredPair) -> StageOutput | None:
        stored, profile = self._stored, self._profile
        abort = profile.generate.abort
        seen = abort.mode != "off" and preview_at(profile) == preview_at(stored.profile)
        scores = _only(pair.scores, PREVIEW_COSINE) if seen else Scores()
        if not pair.images:  # given up halfway: that is all there is to know only where it would be given up again
            finishes = finishes_anyway(profile, stored.caption, stored.attempt)
            if judge_preview(scores.get(PREVIEW_COSINE), abort, finishes=finishes).passed:
                return None
        images = pair.image1 or None, pair.image2 or None
        return GenerateOutput(stored.item, *images, pair.width, pair.height, pair.seed, scores)

    def _locate(self, pair: StoredPair) -> StageOutput | None:
        candidates, locate = self._stored.candidates, self._profile.locate
        if candidates is None:
            return None
        wanted = [noun_key(locate.noun_kind, side) for side, nouns in zip((1, 2), self._nouns, strict=True) if nouns]
        for each in candidates:  # whatever decides about a box must have been scored
            area = judge_area(each.box, pair.width, pair.height, locate)
            if area.reason == "box_degenerate" or not (area.passed or locate.area_test == "last"):
                continue
            if CLIP_IMAGE_COSINE not in each.scores:
                return None
            if judge_crops(each.scores, locate).passed and not each.scores.keys() >= set(wanted):
                return None
        return LocateOutput(self._stored.item, candidates)

    def _of_regions(self, subject: Subject) -> StageOutput | None:
        regions = [(index, self._by_box.get(self._boxes[index])) for index in subject.regions]
        known = [(index, region) for index, region in regions if region is not None]
        if len(known) < len(regions):
            return None
        if subject.stage is Stage.DESCRIBE:
            return self._describe(known)
        # What follows shows an image on the left that depends on the region's number, which may have changed.
        if any(region.left != self._left[index] for index, region in known):
            return None
        return self._of_sides(subject, known)

    def _of_sides(self, subject: Subject, known: Sequence[tuple[int, StoredRegion]]) -> StageOutput | None:
        item = subject.item
        match subject.stage:
            case Stage.CONTRAST if all(region.difference for _, region in known):
                return ContrastOutput(item, tuple(Difference(index, region.difference) for index, region in known))
            case Stage.SCREEN if all(region.answer for _, region in known):
                screened = [(index, each.answer, _only(each.scores, YES_PROBABILITY)) for index, each in known]
                return ScreenOutput(item, tuple(Screened(*each) for each in screened))
            case Stage.RENDER if all(each.images and self._gone.isdisjoint(each.images) for _, each in known):
                return RenderOutput(item, tuple(Rendered(index, *region.images) for index, region in known))
            case _:
                return None

    def _describe(self, known: Sequence[tuple[int, StoredRegion]]) -> StageOutput | None:
        described = []
        for index, region in known:
            scores = self._text_scores(region)
            if scores is None:
                return None
            described.append(Description(index, region.text1, region.text2, scores))
        return DescribeOutput(self._stored.item, tuple(described))

    def _text_scores(self, region: StoredRegion) -> Scores | None:
        """The scores of a region's texts; None where one that decides is missing, or it was never described."""
        describe = self._profile.describe
        said = [bool(text.strip()) for text in (region.text1, region.text2)]
        matches = [match_key(describe.match_kind, side) for side in (1, 2)]
        scores = _only(region.scores, CLIP_TEXT_COSINE, *matches)
        if not (region.text1 or region.text2):
            return None
        if not all(said):  # rejected as it is, whatever it scores
            return scores
        decides = CLIP_TEXT_COSINE in scores and not judge_texts(scores, describe).passed
        return scores if decides or scores.keys() >= {CLIP_TEXT_COSINE, *matches} else None


def _only(scores: Scores, *keys: str) -> Scores:
    return {key: scores[key] for key in keys if key in scores}
