"""What rows of the database look like to people: jobs, object removal and the funnel, with or without a daemon."""

from collections.abc import Iterable, Mapping, Sequence

from imgdiffd.job import ItemState
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.schedulers.cost_table import FIRST_GUESS_S
from imgdiffd.status import Funnel, FunnelStep, JobView, RemovalView, StageView, eta_of, stages_of
from imgdiffd.store import FunnelCounts, JobRow, Progress, ProgressOf, Timing

_NONE = dict.fromkeys(Pipeline, Progress({}, {}, 0))  # for a job without captions


def seconds_per_item(timings: Iterable[Timing]) -> Mapping[Stage, float]:
    """The measured mean cost of each stage that has run, over all devices."""
    seconds: dict[Stage, float] = {}
    items: dict[Stage, int] = {}
    for timing in timings:
        seconds[timing.stage] = seconds.get(timing.stage, 0.0) + timing.seconds
        items[timing.stage] = items.get(timing.stage, 0) + timing.items
    return {stage: seconds[stage] / items[stage] for stage in seconds if items[stage]}


def job_views(
    rows: Sequence[JobRow],
    progress: Mapping[int, ProgressOf],
    profiles: Mapping[str, Profile],
    costs: Mapping[Stage, float],
    devices: int = 0,
) -> tuple[JobView, ...]:
    """The jobs of `rows`, in their order.

    `progress` is by job, where one without captions may be missing, `profiles` by group, `costs` in seconds an item.
    Without `devices` nothing is worked on, so that no job has an ETA.
    """
    known: dict[object, tuple[StageView, ...]] = {}  # most of a thousand small jobs have the same counts
    views = []
    for row in rows:
        counted = progress.get(row.id, _NONE)
        of_captions = counted[Pipeline.REPLACEMENT].stages
        key = (row.group, tuple((stage, *states.items()) for stage, states in of_captions.items()))
        if (stages := known.get(key)) is None:
            stages = known[key] = stages_of(of_captions, costs, profiles[row.group].skipped_stages)
        views.append(_job_view(row, counted, stages, devices))
    return tuple(views)


def _job_view(row: JobRow, counted: ProgressOf, stages: tuple[StageView, ...], devices: int) -> JobView:
    progress = counted[Pipeline.REPLACEMENT]
    return JobView(
        id=row.id,
        name=row.name,
        state=row.state,
        profile=row.profile,
        created_at=row.created_at,
        finished_at=row.finished_at,
        captions=row.total,
        duplicates=row.duplicates,
        problems=row.problems,
        sampled=progress.in_state(ItemState.SAMPLED),
        rejected=progress.in_state(ItemState.REJECTED),
        failed=progress.in_state(ItemState.FAILED),
        cancelled=progress.in_state(ItemState.CANCELLED),
        samples=progress.samples,
        error=row.error or None,
        duplicate_of=row.duplicate_of,
        stages=stages,
        eta_s=eta_of(stages, devices, FIRST_GUESS_S),
        removal=_removal_view(counted[Pipeline.REMOVAL]),
    )


def _removal_view(progress: Progress) -> RemovalView:
    return RemovalView(
        waiting=progress.in_state(ItemState.READY),
        sampled=progress.in_state(ItemState.SAMPLED),
        rejected=progress.in_state(ItemState.REJECTED),
        failed=progress.in_state(ItemState.FAILED),
        cancelled=progress.in_state(ItemState.CANCELLED),
        samples=progress.samples,
    )


def funnel_view(row: FunnelCounts) -> Funnel:
    """How captions narrowed to samples."""
    progress, passed = row.progress[Pipeline.REPLACEMENT], row.progress[Pipeline.REPLACEMENT].passed

    def lost(stage: Stage) -> dict[str, int]:
        return dict(progress.lost.get(stage, {}))

    def parts(stage: Stage) -> dict[str, int]:
        return {reason: number for reason, number in row.verdicts.get(stage, {}).items() if reason}

    vetted = FunnelStep(
        name="pairs that look natural", count=row.passed(Stage.VET), base=row.judged(Stage.VET), lost=lost(Stage.VET)
    )
    sampled = progress.in_state(ItemState.SAMPLED)
    steps = (
        FunnelStep(name="captions", count=progress.total, lost=_unread(row)),
        FunnelStep(name="rewritten", count=passed(Stage.REWRITE), lost=lost(Stage.REWRITE)),
        FunnelStep(name="pairs painted", count=passed(Stage.GENERATE), lost=lost(Stage.GENERATE)),
        FunnelStep(name="pairs alike enough", count=passed(Stage.COMPARE), lost=lost(Stage.COMPARE)),
        *((vetted,) if vetted.base or vetted.lost else ()),
        FunnelStep(name="boxes found", count=row.judged(Stage.LOCATE), base=0),
        FunnelStep(name="regions that differ", count=row.passed(Stage.LOCATE), lost=parts(Stage.LOCATE)),
        FunnelStep(name="regions described", count=row.passed(Stage.DESCRIBE), lost=parts(Stage.DESCRIBE)),
        FunnelStep(name="samples", count=progress.samples, lost=parts(Stage.CONTRAST) | parts(Stage.SCREEN)),
        FunnelStep(name="captions with a sample", count=sampled, base=progress.total),
        *_removal_steps(row),
    )
    return Funnel(steps=steps)


def _removal_steps(row: FunnelCounts) -> tuple[FunnelStep, ...]:
    """The steps of object removal, which starts from the pairs that are alike enough."""
    progress = row.progress[Pipeline.REMOVAL]
    if not progress.total:
        return ()
    alike = row.progress[Pipeline.REPLACEMENT].passed(Stage.COMPARE)
    erased = sum(progress.stages.get(Stage.INSPECT, {}).values())
    tried = progress.total - progress.stages.get(Stage.ERASE, {}).get(ItemState.READY, 0)
    empty = dict(progress.lost.get(Stage.ERASE, {}))
    refused = {reason: number for reason, number in row.verdicts.get(Stage.INSPECT, {}).items() if reason}
    return (
        FunnelStep(name="pairs for object removal", count=progress.total, base=alike),
        FunnelStep(name="pairs with an object erased", count=erased, base=tried, lost=empty),
        FunnelStep(name="objects erased", count=row.passed(Stage.ERASE), base=0),
        FunnelStep(name="removal samples", count=progress.samples, lost=refused),
    )


def _unread(row: FunnelCounts) -> dict[str, int]:
    counts = {"duplicate": row.duplicates, "unreadable": row.problems}
    return {reason: number for reason, number in counts.items() if number}
