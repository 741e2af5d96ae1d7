"""How far a job is at every stage, what is still to be done, and when jobs that share the devices will end."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import groupby

from imgdiffd.job import ItemState
from imgdiffd.pipeline import CAPTION_STAGES, DEPTH, OPTIONAL_STAGES, STAGES, Stage
from imgdiffd.status import DeviceView, JobView, StageView

_NOT_STOPPED = {ItemState.READY, ItemState.SAMPLED, ItemState.CANCELLED}


def stages_of(
    counts: Mapping[Stage, Mapping[ItemState, int]],
    seconds_per_item: Mapping[Stage, float],
    skipped: Collection[Stage] = (),
) -> tuple[StageView, ...]:
    """The progress of every stage from the number of items per (stage, state).

    Stages in `skipped` are left out. What is READY waits at its stage, every other state ended there; what ended as a
    sample passed the last stage. `upstream` and `cancelled` are corrected by the share that each earlier stage has let
    pass so far.
    """
    order = [stage for stage in CAPTION_STAGES if stage not in skipped]
    beyond = {stage: 0 for stage in order}
    passed_later = sum(states.get(ItemState.SAMPLED, 0) for states in counts.values())
    for stage in reversed(order):
        beyond[stage] = passed_later
        passed_later += sum(number for state, number in counts.get(stage, {}).items() if state is not ItemState.SAMPLED)
    views = []
    arriving = missing = 0.0
    for stage in order:
        here = counts.get(stage, {})
        waiting = here.get(ItemState.READY, 0)
        stopped = sum(number for state, number in here.items() if state not in _NOT_STOPPED)
        missing += here.get(ItemState.CANCELLED, 0)
        views.append(
            StageView(
                stage=stage,
                waiting=waiting,
                passed=beyond[stage],
                stopped=stopped,
                upstream=round(arriving),
                cancelled=round(missing),
                seconds_per_item=seconds_per_item.get(stage, 0.0),
            )
        )
        done = beyond[stage] + stopped
        share = beyond[stage] / done if done else 1.0
        arriving = (arriving + waiting) * share
        missing *= share
    return tuple(views)


def work_of(stages: Sequence[StageView], guess_s: Mapping[Stage, float]) -> float | None:
    """Seconds of one device that are still to be done: what every stage will see, at its measured cost.

    A stage that has not run yet costs its first guess (`guess_s`, in seconds an item), scaled by how the stages that
    have run compare with theirs. None before the first batch.
    """
    measured = [view for view in stages if view.seconds_per_item > 0]
    if not measured:
        return None
    guessed_s = sum(guess_s[view.stage] for view in measured)
    scale = sum(view.seconds_per_item for view in measured) / guessed_s if guessed_s else 1.0
    return sum(
        (view.waiting + view.upstream) * (view.seconds_per_item or scale * guess_s[view.stage]) for view in stages
    )


def ends_of(work: Iterable[tuple[int, int, float]], at_once: int) -> dict[int, float]:
    """Seconds of one device until each job ends, from (job, priority, seconds of its own).

    A higher priority goes first. Jobs of equal priority share the devices equally, as the store hands out their tasks:
    the oldest `at_once` of them, the next one as soon as one of these has ended.
    """
    ends: dict[int, float] = {}
    now = 0.0
    for _, equals in groupby(sorted(work, key=lambda job: (-job[1], job[0])), key=lambda job: job[1]):
        waiting = deque(equals)
        under_way: list[tuple[float, int]] = []
        share = 0.0  # what a job that is under way since the first one began has got
        while waiting or under_way:
            while waiting and len(under_way) < at_once:
                job, _, seconds = waiting.popleft()
                heappush(under_way, (share + seconds, job))
            sharing = len(under_way)
            until, job = heappop(under_way)
            now += (until - share) * sharing
            share = until
            ends[job] = now
    return ends


def stranded(jobs: Sequence[JobView], devices: Sequence[DeviceView]) -> tuple[str, ...]:
    """A sentence for each optional stage in which captions wait though no device has its models.

    That happens where an earlier daemon took a job while it ran another bundle.
    """
    found = []
    for stage in sorted(OPTIONAL_STAGES, key=DEPTH.__getitem__):
        views = (view for job in jobs if job.state == "active" for view in job.stages if view.stage is stage)
        waiting = sum(view.waiting for view in views)
        if waiting and not any(STAGES[stage].roles <= set(device.roles) for device in devices):
            found.append(f"{stage}: {waiting} captions wait, no device holds {', '.join(sorted(STAGES[stage].roles))}")
    return tuple(found)
