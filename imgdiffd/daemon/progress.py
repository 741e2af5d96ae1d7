"""How far a job is at every stage, what is still to be done, and when jobs that share the devices will end."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from heapq import heappop, heappush
from itertools import groupby

from imgdiffd.errors import counted
from imgdiffd.job import ItemState
from imgdiffd.pipeline import CAPTION_STAGES, DEPTH, OPTIONAL_STAGES, STAGES, Stage
from imgdiffd.status import DeviceView, StageView
from imgdiffd.store import Queue

_NOTHING: Mapping[ItemState, int] = {}


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
    here = [counts.get(stage, _NOTHING) for stage in order]
    beyond = sum(sum(states.values()) for states in here)  # those that have come to a stage; then, that went beyond it
    views = []
    arriving = missing = 0.0
    for stage, states in zip(order, here, strict=True):
        waiting, cancelled = states.get(ItemState.READY, 0), states.get(ItemState.CANCELLED, 0)
        stopped = states.get(ItemState.REJECTED, 0) + states.get(ItemState.FAILED, 0)
        beyond -= waiting + cancelled + stopped
        missing += cancelled
        seconds = seconds_per_item.get(stage, 0.0)
        views.append(_stage_view(stage, waiting, beyond, stopped, round(arriving), round(missing), seconds))
        done = beyond + stopped
        share = beyond / done if done else 1.0
        arriving = (arriving + waiting) * share
        missing *= share
    return tuple(views)


@lru_cache(maxsize=512)  # small jobs have few different stages at any one time; the seconds in the key change for ever
def _stage_view(
    stage: Stage, waiting: int, passed: int, stopped: int, upstream: int, cancelled: int, seconds: float
) -> StageView:
    return StageView(
        stage=stage,
        waiting=waiting,
        passed=passed,
        stopped=stopped,
        upstream=upstream,
        cancelled=cancelled,
        seconds_per_item=seconds,
    )


def seconds_left(stages: Sequence[StageView], guess_s: Mapping[Stage, float]) -> Mapping[Stage, float]:
    """Seconds of one device that an item which waits at each stage still takes on average, up to its end.

    Every stage costs what was measured, and lets the share pass that it has let pass so far. A stage that has not run
    yet costs its first guess (`guess_s`, in seconds an item), scaled by how the stages that have run compare with
    theirs. Empty before the first batch.
    """
    measured = [view for view in stages if view.seconds_per_item > 0]
    if not measured:
        return {}
    guessed_s = sum(guess_s[view.stage] for view in measured)
    scale = sum(view.seconds_per_item for view in measured) / guessed_s if guessed_s else 1.0
    left: dict[Stage, float] = {}
    after = 0.0
    for view in reversed(stages):
        share = view.passed / view.done if view.done else 1.0
        after = left[view.stage] = (view.seconds_per_item or scale * guess_s[view.stage]) + share * after
    return left


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


def stranded(queue: Queue, devices: Sequence[DeviceView]) -> tuple[str, ...]:
    """A sentence for each optional stage in which captions wait though no device has its models.

    That happens where an earlier daemon took a job while it ran another bundle.
    """
    found = []
    for stage in sorted(OPTIONAL_STAGES, key=DEPTH.__getitem__):
        waiting = sum(count for (_, where), count in queue.backlog.items() if where is stage)
        if waiting and not any(STAGES[stage].roles <= set(device.roles) for device in devices):
            held = f"no device holds {', '.join(sorted(STAGES[stage].roles))}"
            found.append(f"{stage}: {counted(waiting, 'caption')} waiting, {held}")
    return tuple(found)
