"""Drawn captions that ran under drawn profiles, some to their end, and the columns of what is stored of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

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
GOOD, LONG = ("a dog on a mat", 7), ("a dog on a mat", 90)  # answers with their tokens

values = st.sampled_from([0.2, 0.4, 0.85, 0.9, 0.9004, 0.95, 0.98, 1.0, math.nan])
good = st.sampled_from([0.2, 0.4])
bounds = st.builds(Bound, value=values.filter(math.isfinite), closed=st.booleans())
edges = st.integers(0, SIDE)
texts = st.sampled_from([*["a cat"] * 6, " "])
replies = st.sampled_from([*["Yes"] * 6, "no.", "not", ""])


def scored(*keys: str, of: st.SearchStrategy[float] = values) -> st.SearchStrategy[dict[str, float]]:
    """Some or all of these scores; a store never holds NaN."""
    return st.fixed_dictionaries({}, optional={key: of for key in keys}).map(
        lambda found: {key: score for key, score in found.items() if math.isfinite(score)}
    )


def mostly(*keys: str, of: float) -> st.SearchStrategy[dict[str, float]]:
    """All of them with a score that passes, in most cases."""
    return st.integers(0, 5).flatmap(lambda draw: st.just(dict.fromkeys(keys, of)) if draw else scored(*keys))


nouns = [noun_key(kind, side) for kind in KINDS for side in (1, 2)]
matches = [match_key(kind, side) for kind in KINDS for side in (1, 2)]
boxes = st.builds(
    Candidate,
    st.integers(1, 2),
    st.tuples(edges, edges, edges, edges) | st.sampled_from([(0, 0, 50, 50), (50, 50, 99, 99), (0, 50, 45, 99)]),
    st.builds(lambda crop, noun: crop | noun, mostly(CLIP_IMAGE_COSINE, of=0.2), mostly(*nouns, of=0.95)),
)


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


told = st.builds(
    Told,
    texts,
    texts,
    st.builds(lambda text, match: text | match, mostly(CLIP_TEXT_COSINE, of=0.2), mostly(*matches, of=0.8)),
    st.sampled_from([*["it changed"] * 6, " "]),
    replies,
    mostly(YES_PROBABILITY, of=0.9),
)
worlds = st.builds(
    Drawn,
    st.sampled_from([7, 7, 7, 7, 80]),
    st.lists(st.sampled_from([GOOD, GOOD, GOOD, GOOD, LONG, (CAPTION, 7)]), min_size=1, max_size=3),
    mostly(CLIP_IMAGE_COSINE, of=0.95),
    mostly(PREVIEW_COSINE, of=0.9),
    st.tuples(replies, mostly(YES_PROBABILITY, of=0.9)),
    st.lists(st.tuples(boxes, told), max_size=5),
)


@st.composite
def changed(draw: st.DrawFn, profile: Profile) -> Profile:
    """The profile with some other thresholds and rules, and seldom another prompt."""

    def some(section: str, **given: st.SearchStrategy[object]) -> object:
        update = {key: draw(chosen) for key, chosen in given.items() if draw(st.integers(0, 3)) == 0}
        return getattr(profile, section).model_copy(update=update)

    abort = {"mode": draw(st.sampled_from(["off", "shadow", "on"])), "below": draw(st.sampled_from([None, 0.87]))}
    generate = profile.generate
    return profile.model_copy(
        update={
            "scores": draw(st.sampled_from(["all", "needed"])),
            "rewrite": some(
                "rewrite", attempts=st.integers(1, 4), max_caption_tokens=st.sampled_from([60, 77, 85, 99])
            ),
            "generate": generate.model_copy(
                update={
                    "abort": generate.abort.model_copy(
                        update=abort | {"finished": draw(st.sampled_from([0.0, 0.5, 1.0]))}
                    )
                }
            ),
            "pair": some("pair", above=bounds, below=bounds, decimals=st.sampled_from([None, 2, 3])),
            "natural": some(
                "natural",
                enabled=st.booleans(),
                shown=st.sampled_from(["pairs", "samples"]),
                rule=st.sampled_from(["answer", "probability"]),
            ),
            "locate": some(
                "locate",
                crop_cosine_below=bounds,
                noun_above=bounds,
                noun_kind=st.sampled_from(KINDS),
                overlap_iou=bounds,
                min_area=st.sampled_from([0.0, 0.0025, 0.25]),
                regions=st.integers(0, 3),
                overlap_limit=st.integers(0, 3),
                area_test=st.sampled_from(["first", "last"]),
                noun_rule=st.sampled_from(["any", "both"]),
                overlap_keeps=st.sampled_from(["most_different", "first_found"]),
            ),
            "describe": some(
                "describe", text_cosine_below=bounds, match_above=bounds, match_kind=st.sampled_from(KINDS)
            ),
            "contrast": some("contrast", max_new_tokens=st.just(9), sides=st.sampled_from(["random", "original_left"])),
        }
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Run], Profile]:
    """Runs under one profile or two, some not finished, and the profile that is asked about."""
    base = draw(st.sampled_from(PROFILES))
    owns = [draw(changed(base)) for _ in range(draw(st.integers(1, 2)))]
    runs = [
        Run(world, draw(st.sampled_from(owns)), number)
        for number, world in enumerate(draw(st.lists(worlds, max_size=4)), 1)
    ]
    for run in runs:
        run.finish(draw(st.none() | st.integers(0, 8)))
    return runs, draw(st.sampled_from(owns) | changed(base))


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
