"""What rows of the database look like to people: jobs, object removal and the funnel, with or without a daemon."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from imgdiffd.daemon.progress import ends_of, seconds_left, stages_of
from imgdiffd.job import TERMINAL_ITEM_STATES, TERMINAL_JOB_STATES, CaptionProblem, ItemState, JobChoice, chosen_states
from imgdiffd.method.filters import TOO_DIFFERENT, TOO_SIMILAR
from imgdiffd.method.profile import IMPORTED, Profile
from imgdiffd.pipeline import PIPELINE_OF, PIPELINES, Pipeline, Stage
from imgdiffd.schedulers.cost_table import first_guess_s
from imgdiffd.status import (
    Funnel,
    FunnelStep,
    GateView,
    JobPage,
    JobView,
    OpenJobs,
    ProblemPage,
    ProblemView,
    RemovalView,
    StageView,
)
from imgdiffd.store import FunnelCounts, ItemStory, JobRow, Overview, Progress, ProgressOf, Queue, Timing

OPEN, RECENT = 1000, 20  # the most open jobs in a status, and jobs that have ended
_Counts = Literal["captions", "regions", "pairs", "objects"]
_NO_REMOVAL = RemovalView()
_NO_GATE = GateView()
_NONE = dict.fromkeys(Pipeline, Progress({}, {}, 0))  # for a job without captions


def seconds_per_item(timings: Iterable[Timing]) -> Mapping[Stage, float]:
    """The measured mean cost of each stage that has run, over all devices."""
    seconds: dict[Stage, float] = {}
    items: dict[Stage, int] = {}
    for timing in timings:
        seconds[timing.stage] = seconds.get(timing.stage, 0.0) + timing.seconds
        items[timing.stage] = items.get(timing.stage, 0) + timing.items
    return {stage: seconds[stage] / items[stage] for stage in seconds if items[stage]}


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast work goes: the measured seconds of an item of each stage, and on how many devices.

    `at_once` is how many jobs may be under way. A stage that has not run yet costs its first guess for `bundle`.
    """

    seconds: Mapping[Stage, float]
    devices: int = 0
    at_once: int = 1
    bundle: str = "paper"


@dataclass(frozen=True, slots=True)
class Etas:
    """Seconds until the end of jobs that are worked on, what goes before each included, and until that of all work."""

    by_job: Mapping[int, float] = field(default_factory=dict)
    all_s: float | None = None


def etas_of(queue: Queue, profiles: Mapping[str, Profile], pace: Pace) -> Etas:
    """When the jobs whose waiting captions `queue` tells end, as if no more came after them, and when all work does.

    `profiles` is by group. None has one before the first batch, and without devices.
    """
    if not pace.devices:
        return Etas()
    guesses_s = first_guess_s(pace.bundle)
    left = {
        group: seconds_left(stages_of(counts, pace.seconds, profiles[group].skipped_stages), guesses_s)
        for group, counts in queue.groups.items()
    }
    work: dict[int, float] = {}
    priorities: dict[int, int] = {}
    for each in queue.waiting:
        if seconds := left[each.group].get(each.stage):
            work[each.job] = work.get(each.job, 0.0) + each.count * seconds / pace.devices
            priorities[each.job] = each.priority
    by_job = ends_of([(job, priorities[job], seconds) for job, seconds in work.items()], pace.at_once)
    all_s = sum(n * left[group].get(stage, 0.0) / pace.devices for (group, stage), n in queue.backlog.items())
    return Etas(by_job, all_s or None)


def open_jobs(queue: Queue, eta_s: float | None) -> OpenJobs:
    """All open jobs together."""
    counts = [states for stages in queue.groups.values() for states in stages.values()]
    captions = sum(sum(states.values()) for states in counts)
    done = captions - sum(states.get(ItemState.READY, 0) for states in counts)
    return OpenJobs(captions=captions, done=done, samples=queue.samples, eta_s=eta_s)


def job_views(
    rows: Sequence[JobRow],
    progress: Mapping[int, ProgressOf],
    profiles: Mapping[str, Profile],
    pace: Pace,
    etas_s: Mapping[int, float] = MappingProxyType({}),
) -> tuple[JobView, ...]:
    """The jobs of `rows`, in their order.

    `progress` and `etas_s` are by job, where some may be missing, `profiles` by group.
    """
    known: dict[object, tuple[StageView, ...]] = {}  # most of a thousand small jobs have equal counts
    views = []
    for row in rows:
        counted = progress.get(row.id, _NONE)
        of_captions = counted[Pipeline.REPLACEMENT].stages
        key = (row.group, tuple((stage, *states.items()) for stage, states in of_captions.items()))
        if (stages := known.get(key)) is None:
            stages = known[key] = stages_of(of_captions, pace.seconds, profiles[row.group].skipped_stages)
        shown = () if row.profile == IMPORTED else stages  # which it went through elsewhere is not known
        views.append(_job_view(row, counted, shown, etas_s.get(row.id)))
    return tuple(views)


def page_view(seen: Overview, choice: JobChoice, limit: int, views: tuple[JobView, ...]) -> JobPage:
    """A page of `limit` of the jobs of `choice`, of which `seen` has one more if there is one more."""
    return JobPage(
        jobs=views[:limit],
        total=sum(seen.counts.get(state, 0) for state in chosen_states(choice)),
        next=_cursor_of(seen.rows[limit - 1]) if len(seen.rows) > limit else None,
    )


def _cursor_of(row: JobRow) -> int:
    """Where a list of jobs goes on after this one; negative among those that have ended."""
    return -row.id if row.state in TERMINAL_JOB_STATES else row.id


def _job_view(row: JobRow, counted: ProgressOf, stages: tuple[StageView, ...], eta_s: float | None) -> JobView:
    progress = counted[Pipeline.REPLACEMENT]
    return JobView(
        id=row.id,
        name=row.name,
        state=row.state,
        profile=row.profile,
        priority=row.priority,
        created_at=row.created_at,
        finished_at=row.finished_at,
        captions=row.total,
        duplicates=row.duplicates,
        problems=row.problems,
        **_ended(progress),
        samples=progress.samples,
        error=row.error or None,
        duplicate_of=row.duplicate_of,
        stages=stages,
        gate=gate_view(progress),
        eta_s=eta_s,
        removal=removal_view(counted[Pipeline.REMOVAL]),
    )


def removal_view(progress: Progress) -> RemovalView:
    """Object removal's counts."""
    if not progress.stages:
        return _NO_REMOVAL
    return RemovalView(waiting=progress.in_state(ItemState.READY), **_ended(progress), samples=progress.samples)


def gate_view(progress: Progress) -> GateView:
    """On which side of the similarity gate pairs were rejected."""
    lost = Counter(progress.lost.get(Stage.COMPARE, {}))
    half_painted = Counter(progress.lost.get(Stage.GENERATE, {}))
    sides = [sum(lost[reason] + half_painted[reason] for reason in side) for side in (TOO_DIFFERENT, TOO_SIMILAR)]
    if not any(sides):
        return _NO_GATE
    given_up = sum(half_painted[reason] for reason in (*TOO_DIFFERENT, *TOO_SIMILAR))
    return GateView(too_different=sides[0], too_similar=sides[1], half_painted=given_up)


def _ended(progress: Progress) -> dict[str, int]:
    counted = progress.by_state()
    return {state.value: counted.get(state, 0) for state in TERMINAL_ITEM_STATES}


def funnel_view(row: FunnelCounts) -> Funnel:
    """How captions narrowed to samples, and pairs to those of object removal."""
    captions, pairs = row.progress[Pipeline.REPLACEMENT], row.progress[Pipeline.REMOVAL]
    steps, ends = (*_caption_steps(row, captions), *_region_steps(row, captions)), _ends("captions", captions)
    if pairs.total:
        alike = captions.passed(Stage.COMPARE)
        steps, ends = (*steps, *_removal_steps(row, pairs, alike)), (*ends, *_ends("pairs", pairs))
    return Funnel(steps=steps, ends=ends)


def _narrowing(name: str, counts: _Counts, progress: Progress, first: Stage, last: Stage) -> FunnelStep:
    """How many items passed the stages from `first` to `last`; what is lost or waits is in one of these."""
    order = PIPELINES[PIPELINE_OF[last]].stages
    stages = order[order.index(first) : order.index(last) + 1]
    lost: Counter[str] = Counter()
    for stage in stages:
        lost.update(progress.lost.get(stage, {}))
    waiting = sum(progress.stages.get(stage, {}).get(ItemState.READY, 0) for stage in stages)
    count = progress.passed(last)
    came = count + lost.total() + waiting
    return FunnelStep(name=name, count=count, counts=counts, base=came, lost=dict(lost.most_common()), waiting=waiting)


def _caption_steps(row: FunnelCounts, progress: Progress) -> tuple[FunnelStep, ...]:
    unread = {"duplicate": row.duplicates, "unreadable": row.problems}
    narrowings = [
        ("rewritten", Stage.REWRITE, Stage.REWRITE),
        ("pairs painted", Stage.GENERATE, Stage.GENERATE),
        ("pairs alike enough", Stage.COMPARE, Stage.COMPARE),
        ("pairs that look natural", Stage.VET, Stage.VET),
        ("pairs with a region", Stage.LOCATE, Stage.LOCATE),
        ("pairs with a sample", Stage.DESCRIBE, Stage.RENDER),
    ]
    vetted = row.judged(Stage.VET) or Stage.VET in progress.stages
    return (
        FunnelStep(name="captions", count=progress.total, lost={why: n for why, n in unread.items() if n}),
        *(
            _narrowing(name, "captions", progress, first, last)
            for name, first, last in narrowings
            if vetted or first is not Stage.VET
        ),
    )


def _part(row: FunnelCounts, name: str, counts: _Counts, count: int, judging: Sequence[Stage]) -> FunnelStep:
    """How many parts of items are left after the stages `judging` them, and what these refused."""
    lost: Counter[str] = Counter()
    for stage in judging:
        lost.update({reason: n for reason, n in row.verdicts.get(stage, {}).items() if reason})
    base = row.judged(judging[0]) if judging else 0
    return FunnelStep(name=name, count=count, counts=counts, base=base, lost=dict(lost.most_common()))


def _region_steps(row: FunnelCounts, progress: Progress) -> tuple[FunnelStep, ...]:
    return (
        _part(row, "boxes found", "regions", row.judged(Stage.LOCATE), ()),
        _part(row, "regions that differ", "regions", row.passed(Stage.LOCATE), (Stage.LOCATE,)),
        _part(row, "regions described", "regions", row.passed(Stage.DESCRIBE), (Stage.DESCRIBE,)),
        _part(row, "samples", "regions", progress.samples, (Stage.CONTRAST, Stage.SCREEN, Stage.RENDER)),
    )


def _removal_steps(row: FunnelCounts, progress: Progress, alike: int) -> tuple[FunnelStep, ...]:
    """The steps of object removal, which starts from the pairs that are `alike` enough."""
    return (
        FunnelStep(name="pairs for object removal", count=progress.total, counts="pairs", base=alike),
        _narrowing("pairs with an object erased", "pairs", progress, Stage.ERASE, Stage.ERASE),
        _narrowing("pairs with a removal sample", "pairs", progress, Stage.INSPECT, Stage.INSPECT),
        _part(row, "objects erased", "objects", row.passed(Stage.ERASE), (Stage.ERASE,)),
        _part(row, "removal samples", "objects", progress.samples, (Stage.INSPECT,)),
    )


def _ends(counts: _Counts, progress: Progress) -> tuple[FunnelStep, ...]:
    """What has become of all items so far; the states that none is in are left out."""
    names = {
        ItemState.SAMPLED: "with a sample",
        ItemState.REJECTED: "rejected",
        ItemState.FAILED: "failed",
        ItemState.CANCELLED: "cancelled",
        ItemState.READY: "waiting",
    }
    return tuple(
        FunnelStep(name=f"{counts} {name}", count=count, counts=counts, base=progress.total)
        for state, name in names.items()
        if (count := progress.in_state(state)) or state is ItemState.SAMPLED
    )


def problem_page(row: JobRow, found: Sequence[CaptionProblem], after: int) -> ProblemPage:
    """The records `found` behind the first `after` of the job's file that have no usable caption."""
    views = tuple(ProblemView(line=each.line, reason=each.code, message=each.message) for each in found)
    end = after + len(views)
    return ProblemPage(problems=views, total=row.problems, next=end if views and end < row.problems else None)


def story_view(story: ItemStory, gone: Mapping[str, str]) -> dict[str, Any]:
    """Everything known about one caption, as plain data; `gone` says why images are not there, by their names."""
    plain = asdict(story)
    plain["profile"] = story.profile and story.profile.model_dump(mode="json")
    plain["profiles"] = {str(region): names for region, names in story.profiles.items()}
    plain["pictures_gone"] = dict(gone)
    return plain
