"""What a stage's output means for its item: where it goes next, and why, as one frozen `Step`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.method.filters import (
    PASSED,
    Region,
    Verdict,
    choose_regions,
    finishes_anyway,
    judge_description,
    judge_difference,
    judge_natural,
    judge_pair,
    judge_preview,
    left_image,
    summarise,
)
from imgdiffd.method.messages import (
    PREVIEW_COSINE,
    CompareOutput,
    ContrastOutput,
    DescribeOutput,
    GenerateOutput,
    LocateOutput,
    RenderOutput,
    RewriteOutput,
    ScreenOutput,
    StageOutput,
    VetOutput,
)
from imgdiffd.method.nouns import changed_nouns
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal import judge_erased, judge_inspections
from imgdiffd.method.removal_messages import EraseOutput, InspectOutput
from imgdiffd.method.rewriting import clean_answer, judge_answer
from imgdiffd.pipeline import Stage, stage_after

NOT_RETRIED = frozenset({"caption_too_long"})  # another seed cannot shorten the caption
FIRST_ATTEMPT = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """What a decision must know of the item beside the output.

    Sizes are in pixels; `regions` are those still in, `objects` the erased ones as (image, index), both in order.
    """

    item: int
    stage: Stage
    attempt: int
    caption: str
    width: int = 0
    height: int = 0
    regions: tuple[int, ...] = ()
    objects: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Where the item goes.

    A READY item waits in `stage`; any other ended there with `verdict`. `parts` has a verdict for each of the
    output's parts: the answer, the vetted pair, every box found, or every region or object of the subject, in order.
    `rewritten` is the second caption with the nouns that only caption 1 and only caption 2 have; `regions` are the
    boxes chosen; `left` is the image that stands on the left, for each region of the subject that passed.
    """

    item: int
    stage: Stage
    state: ItemState
    attempt: int
    verdict: Verdict = PASSED
    parts: tuple[Verdict, ...] = ()
    rewritten: tuple[str, tuple[str, ...], tuple[str, ...]] | None = None
    regions: tuple[Region, ...] = ()
    left: Mapping[int, int] | None = None


def _forward(subject: Subject, profile: Profile) -> tuple[Stage, ItemState]:
    following = stage_after(subject.stage, profile.skipped_stages)
    return (subject.stage, ItemState.SAMPLED) if following is None else (following, ItemState.READY)


def _judged(
    subject: Subject,
    profile: Profile,
    verdict: Verdict,
    parts: Iterable[Verdict] = (),
    regions: tuple[Region, ...] = (),
) -> Step:
    stage, state = _forward(subject, profile) if verdict.passed else (subject.stage, ItemState.REJECTED)
    return Step(subject.item, stage, state, subject.attempt, verdict, tuple(parts), regions=regions)


def _after_rewrite(subject: Subject, output: RewriteOutput, profile: Profile) -> Step:
    verdict = judge_answer(subject.caption, output, profile.rewrite)
    if verdict.passed:
        caption2 = clean_answer(output.answer or "")
        nouns1, nouns2 = changed_nouns(subject.caption, caption2)
        stage, state = _forward(subject, profile)
        return Step(subject.item, stage, state, subject.attempt, parts=(verdict,), rewritten=(caption2, nouns1, nouns2))
    if verdict.reason not in NOT_RETRIED and subject.attempt - FIRST_ATTEMPT + 1 < profile.rewrite.attempts:
        return Step(subject.item, subject.stage, ItemState.READY, subject.attempt + 1, verdict, (verdict,))
    return Step(subject.item, subject.stage, ItemState.REJECTED, subject.attempt, verdict, (verdict,))


def _after_generate(subject: Subject, output: GenerateOutput, profile: Profile) -> Step:
    finishes = finishes_anyway(profile, subject.caption, subject.attempt)
    verdict = judge_preview(output.scores.get(PREVIEW_COSINE), profile.generate.abort, finishes=finishes)
    if verdict.passed and (output.image1 is None or output.image2 is None):
        verdict = Verdict("picture_missing")
    return _judged(subject, profile, verdict)


def _after_describe(subject: Subject, output: DescribeOutput, profile: Profile) -> Step:
    described = {region.index: region for region in output.regions}
    verdicts = [
        judge_description(described[index], profile.describe) if index in described else Verdict("description_missing")
        for index in subject.regions
    ]
    left = {
        index: left_image(profile, subject.caption, subject.attempt, index)
        for index, verdict in zip(subject.regions, verdicts, strict=True)
        if verdict.passed
    }
    verdict = summarise(verdicts)
    stage, state = _forward(subject, profile) if verdict.passed else (subject.stage, ItemState.REJECTED)
    return Step(subject.item, stage, state, subject.attempt, verdict, tuple(verdicts), left=left)


def _present(regions: Sequence[int], have: Iterable[int], code: str) -> list[Verdict]:
    present = set(have)
    return [PASSED if index in present else Verdict(code) for index in regions]


def _after_contrast(subject: Subject, output: ContrastOutput, profile: Profile) -> Step:
    verdicts = {region.index: judge_difference(region) for region in output.regions}
    parts = [verdicts.get(index, Verdict("difference_missing")) for index in subject.regions]
    return _judged(subject, profile, summarise(parts), parts)


def _after_screen(subject: Subject, output: ScreenOutput, profile: Profile) -> Step:
    verdicts = {each.index: judge_natural(each.answer, each.scores, profile.natural) for each in output.regions}
    parts = [verdicts.get(index, Verdict("answer_missing")) for index in subject.regions]
    return _judged(subject, profile, summarise(parts), parts)


def advance(subject: Subject, output: StageOutput, profile: Profile) -> Step:
    """Where `subject`'s item goes now that its stage gave `output`; pure, so a replay decides the same.

    A rejected rewrite is tried again under the next attempt while the profile allows; every other rejection is final.
    A region without its text or image is rejected like one that failed a filter: what is missing never counts as
    kept. Raises ValueError for the output of another stage or item.
    """
    if output.item != subject.item or output.kind != subject.stage.value:
        raise ValueError(f"item {subject.item} in {subject.stage}: got {output.kind}'s output of item {output.item}")
    match output:
        case RewriteOutput():
            step = _after_rewrite(subject, output, profile)
        case GenerateOutput():
            step = _after_generate(subject, output, profile)
        case CompareOutput():
            step = _judged(subject, profile, judge_pair(output.scores, profile.pair))
        case VetOutput():
            verdict = judge_natural(output.answer, output.scores, profile.natural)
            step = _judged(subject, profile, verdict, (verdict,))
        case LocateOutput():
            choice = choose_regions(output.candidates, profile.locate, subject.width, subject.height)
            step = _judged(subject, profile, choice.verdict, choice.verdicts, choice.regions)
        case DescribeOutput():
            step = _after_describe(subject, output, profile)
        case ContrastOutput():
            step = _after_contrast(subject, output, profile)
        case ScreenOutput():
            step = _after_screen(subject, output, profile)
        case RenderOutput():
            rendered = (region.index for region in output.regions)
            parts = _present(subject.regions, rendered, "picture_missing")
            step = _judged(subject, profile, summarise(parts), parts)
        case EraseOutput():
            step = _judged(subject, profile, *judge_erased(output, profile.removal))
        case InspectOutput():
            verdicts = judge_inspections(subject.objects, output, profile.removal)
            step = _judged(subject, profile, summarise(verdicts), verdicts)
    return step
