"""Drawn captions that ran under drawn profiles, some to their end, and the columns of what is stored of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from pydantic import BaseModel

from imgdiffd.choosing.columns import Columns
from imgdiffd.choosing.gathering import gather
from imgdiffd.job import ItemState
from imgdiffd.method.filters import finishes_anyway, judge_area, judge_crops, judge_preview
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
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_files import BUILT_IN
from imgdiffd.method.profile_sections import Bound
from imgdiffd.method.replay import StoredPair
from imgdiffd.method.rewriting import judge_answer
from imgdiffd.store import ItemMark, ScoredItem, ScoredRegion
from tests.fakes.world import SIDE, Run, World

PROFILES = [load_profile(name) for name in BUILT_IN]
KINDS = ("blip_itc_cosine", "blip_itm_probability")
CAPTION = "a cat on a mat"
ANSWERS = (*[("a dog on a mat", 7)] * 5, ("a dog on a mat", 90), (CAPTION, 7))  # with their tokens
REPLIES = (*["Yes"] * 6, "no.", "not", "")
NOUNS, MATCHES = ([key(kind, side) for kind in KINDS for side in (1, 2)] for key in (noun_key, match_key))
VALUES = (0.2, 0.4, 0.85, 0.9, 0.9004, 0.95, 0.98)


def some(draw: Random, *keys: str, near: float) -> Scores:
    """Most scores near a value that mostly passes, some anywhere, a few missing: a store never holds NaN."""
    drawn = {
        key: near + draw.choice((-0.04, 0.0, 0.02)) if draw.random() < 0.8 else draw.choice(VALUES) for key in keys
    }
    return {key: score for key, score in drawn.items() if draw.random() < 0.97}


@dataclass(frozen=True)
class Told:
    """What the models say of a box, if they are asked."""

    text1: str
    text2: str
    scores: Scores
    difference: str
    answer: str
    natural: Scores


class Drawn(World):
    """Answers as drawn, whatever the profile asks for: `answers` with their tokens by attempt, scores, and boxes."""

    def __init__(
        self,
        tokens: int,
        answers: Sequence[tuple[str, int]],
        pair: Scores,
        preview: Scores,
        judged: tuple[str, Scores],
        boxes: Sequence[tuple[Candidate, Told]],
    ) -> None:
        super().__init__(CAPTION)
        self.tokens, self.answers, self.pair, self.preview = tokens, answers, pair, preview
        self.judged, self.boxes = judged, boxes

    def answer(self, given: StageInput, profile: Profile, attempt: int) -> StageOutput:
        match given:
            case RewriteInput():
                return self._rewritten(given, profile)
            case GenerateInput():
                return self._painted(given, profile)
            case CompareInput():
                return CompareOutput(given.item, self.pair)
            case VetInput():
                return VetOutput(given.item, *self.judged)
            case LocateInput():
                return LocateOutput(given.item, tuple(self._seen(box, profile) for box, _ in self.boxes))
        return self._told(given)

    def _rewritten(self, given: RewriteInput, profile: Profile) -> RewriteOutput:
        if self.tokens > profile.rewrite.max_caption_tokens:
            return RewriteOutput(given.item, None, False, self.tokens, 0, 7)
        text, tokens = self.answers[(given.attempt - 1) % len(self.answers)]
        return RewriteOutput(given.item, text, False, self.tokens, tokens, 7)

    def _painted(self, given: GenerateInput, profile: Profile) -> GenerateOutput:
        abort = profile.generate.abort
        scores = {} if abort.mode == "off" else self.preview
        finishes = finishes_anyway(profile, CAPTION, given.attempt)
        goes_on = judge_preview(scores.get(PREVIEW_COSINE), abort, finishes=finishes).passed
        output = GenerateOutput(given.item, "1.png", "2.png", SIDE, SIDE, 7, scores)
        return output if goes_on else replace(output, image1=None, image2=None)

    @staticmethod
    def _seen(box: Candidate, profile: Profile) -> Candidate:
        """As `stages.locate` scores a box under `scores = "needed"`, or with all that is drawn."""
        size = judge_area(box.box, SIDE, SIDE, profile.locate)
        if size.reason == "box_degenerate":
            return replace(box, scores={})
        if profile.scores == "needed" and not size.passed and profile.locate.area_test == "first":
            return replace(box, scores={})
        if profile.scores == "needed" and not judge_crops(box.scores, profile.locate).passed:
            return replace(box, scores={key: box.scores[key] for key in box.scores if key == CLIP_IMAGE_COSINE})
        return box

    def _told(self, given: StageInput) -> StageOutput:
        assert isinstance(given, DescribeInput | ContrastInput | ScreenInput | RenderInput)
        by_box = {box.box: told for box, told in self.boxes}
        told = [(each.index, by_box[each.box]) for each in given.regions]
        match given:
            case DescribeInput():
                said = (Description(index, each.text1, each.text2, each.scores) for index, each in told)
                return DescribeOutput(given.item, tuple(said))
            case ContrastInput():
                return ContrastOutput(given.item, tuple(Difference(index, each.difference) for index, each in told))
            case ScreenInput():
                judged = (Screened(index, each.answer, each.natural) for index, each in told)
                return ScreenOutput(given.item, tuple(judged))
        return RenderOutput(given.item, tuple(Rendered(index, f"{index}-left", f"{index}-right") for index, _ in told))


def drawn_told(draw: Random) -> Told:
    """Texts that sometimes are empty, and scores."""
    texts = [draw.choice((*["a cat"] * 8, " ", "")) for _ in range(2)]
    scores = some(draw, CLIP_TEXT_COSINE, near=0.6) | some(draw, *MATCHES, near=0.6)
    return Told(
        texts[0], texts[1], scores, draw.choice((*["it changed"] * 8, " ")), draw.choice(REPLIES),
        some(draw, YES_PROBABILITY, near=0.6),
    )  # fmt: skip


def drawn_world(draw: Random) -> Drawn:
    """A caption with up to six boxes."""
    places = [draw.sample(range(100), 4) for _ in range(2)] + [
        [0, 0, 50, 50],
        [50, 50, 99, 99],
        [0, 50, 45, 99],
        [4, 0, 52, 50],
    ]
    boxes = []
    for x1, y1, x2, y2 in draw.sample(places, draw.randint(0, 6)):
        scores = some(draw, CLIP_IMAGE_COSINE, near=0.7) | some(draw, *NOUNS, near=0.5)
        boxes.append((Candidate(draw.randint(1, 2), (x1, y1, x2, y2), scores), drawn_told(draw)))
    return Drawn(
        draw.choice((*[7] * 9, 80)),
        draw.choices(ANSWERS, k=3),
        some(draw, CLIP_IMAGE_COSINE, near=0.94),
        some(draw, PREVIEW_COSINE, near=0.9),
        (draw.choice(REPLIES), some(draw, YES_PROBABILITY, near=0.6)),
        boxes,
    )


def changed(draw: Random, profile: Profile) -> Profile:
    """The profile with some other thresholds and rules, and seldom another prompt."""

    def section(name: str, **drawn: object) -> BaseModel:
        part: BaseModel = getattr(profile, name)
        return part.model_copy(update={key: value for key, value in drawn.items() if draw.random() < 0.25})

    def bound(*near: float) -> Bound:
        return Bound(value=draw.choice(near), closed=draw.random() < 0.5)

    abort = profile.generate.abort.model_copy(
        update={
            "mode": draw.choice(("off", "shadow", "on")),
            "below": draw.choice((None, 0.87, 0.9)),
            "finished": draw.choice((0.0, 0.5, 1.0)),
            "at": draw.choice((None, None, 0.3)),
        }
    )
    return profile.model_copy(
        update={
            "scores": draw.choice(("all", "needed")),
            "rewrite": section("rewrite", attempts=draw.randint(1, 4), max_caption_tokens=draw.choice((60, 85, 99))),
            "generate": section("generate", abort=abort),
            "pair": section("pair", above=bound(0.9, 0.4), below=bound(0.96, 0.98, 1.1), decimals=draw.choice((2, 3))),
            "natural": section(
                "natural",
                enabled=True,
                shown=draw.choice(("pairs", "samples")),
                rule=draw.choice(("answer", "probability")),
            ),
            "locate": section(
                "locate",
                crop_cosine_below=bound(0.7, 0.72, 0.9),
                noun_above=bound(0.46, 0.5, 0.4),
                noun_kind=draw.choice(KINDS),
                overlap_iou=bound(0.0, 0.5, 0.8),
                min_area=draw.choice((0.0, 0.25)),
                regions=draw.randint(0, 3),
                overlap_limit=draw.randint(0, 3),
                area_test=draw.choice(("first", "last")),
                noun_rule=draw.choice(("any", "both")),
                overlap_keeps=draw.choice(("most_different", "first_found")),
            ),
            "describe": section(
                "describe",
                text_cosine_below=bound(0.6, 0.62, 0.9),
                match_above=bound(0.56, 0.6, 0.3),
                match_kind=draw.choice(KINDS),
            ),
            "contrast": section("contrast", sides=draw.choice(("random", "original_left"))),
        }
    )


def case(seed: int, captions: int = 12) -> tuple[list[Run], Profile]:
    """Runs under one profile or two, some not finished, and the profile that is asked about."""
    draw = Random(seed)
    base = draw.choice(PROFILES)
    owns = [changed(draw, base) for _ in range(draw.randint(1, 2))]
    runs = [Run(drawn_world(draw), draw.choice(owns), number) for number in range(1, captions + 1)]
    for run in runs:
        run.finish(draw.choice((None, None, None, draw.randint(0, 8))))
    return runs, draw.choice((owns[0], changed(draw, owns[0]), changed(draw, base)))


def columns_of(runs: Sequence[Run]) -> Columns:
    """The columns of what a store holds of these runs, each a group of its own."""
    marks, scored = [], []
    for run in runs:
        at, pair, stored = run.subject, run.stored.pair or StoredPair(), run.stored
        marks.append(ItemMark(run.item, 1, run.item, bytes(16), at.stage, ItemState.READY, stored.attempt, "", 0, 0))
        regions = [
            ScoredRegion(
                number,
                0 if stored.candidates is None else _place(stored.candidates, each.box),
                each.scores,
                each.text1,
                each.text2,
                each.left,
                each.difference,
                each.answer,
                "",
                bool(each.images),
            )
            for number, each in enumerate(stored.regions)
        ]
        found = stored.candidates
        boxes = None if found is None else tuple((each.image, each.box, each.scores, "", "") for each in found)
        rewrites = [
            (attempt, each, judge_answer(CAPTION, each, run.profile.rewrite).reason or "")
            for attempt, each in stored.rewrites.items()
        ]
        scored.append(
            ScoredItem(
                run.item,
                CAPTION,
                rewrites,
                pair.width,
                pair.height,
                bool(pair.image1),
                pair.scores,
                pair.answer,
                (True, True),
                boxes,
                regions,
            )
        )
    return gather(marks, scored, {run.item: run.profile for run in runs})


def _place(candidates: Sequence[Candidate], box: Box) -> int:
    return [each.box for each in candidates].index(box)
