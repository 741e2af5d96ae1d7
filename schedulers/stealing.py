"""Decides whether a device with nothing to do takes work from another's deque, from whose, and how much."""

from collections.abc import Sequence
from dataclasses import dataclass

from imgdiffd.pipeline import DEPTH, Stage
from imgdiffd.schedulers.batching import BatchOption, Patience
from imgdiffd.schedulers.reasons import Reason, TheftCode

# Two 1024 x 1024 PNG files are read and decoded by the thief; the owner has them on its GPU (25 ms each on one core).
LEAVING_S = 0.05


def leaving_price_s(stage: Stage, size: int) -> float:
    """The extra seconds that a batch costs away from the device that painted its images."""
    return LEAVING_S * size if DEPTH[stage] > DEPTH[Stage.GENERATE] else 0.0


@dataclass(frozen=True, slots=True)
class Victim:
    """A device to steal from.

    `lanes` hold the stages whose models the thief has; their `limit` and `batch_s` are the thief's. `lane_s` are the
    seconds that each lane would take where it is. `free_in_s` is how long what runs there still needs, `backlog_s` that
    and everything queued.
    """

    device: str
    lanes: tuple[BatchOption, ...]
    lane_s: tuple[float, ...]
    free_in_s: float
    backlog_s: float


@dataclass(frozen=True, slots=True)
class Theft:
    """Take `size` tasks of lane `lane` of `device`; or, where that is None, nothing before `until_s` or a change."""

    device: str | None
    lane: int
    size: int
    until_s: float | None
    reason: Reason


def _nothing(code: TheftCode, text: str, until_s: float | None = None) -> Theft:
    return Theft(None, 0, 0, until_s, Reason(code, text))


def _paying_size(candidate: BatchOption, victim: Victim, own_backlog_s: float) -> int:
    """How many tasks to take, so that both are done sooner than the victim alone would be; 0 where no number pays.

    That is a whole batch, or half of a smaller one if the victim comes to it before the thief would be done with it;
    fewer where the thief is slow; of the last of their kind, the thief's share.
    """
    full, size = min(candidate.count, candidate.limit), candidate.size
    if candidate.share is None and candidate.count <= candidate.limit and victim.free_in_s < candidate.batch_s:
        size = (candidate.count + 1) // 2
    price_s = leaving_price_s(candidate.stage, size)
    while size:
        if own_backlog_s + price_s + candidate.batch_s * size / full < victim.backlog_s:
            return size
        size //= 2
    return 0


def choose_theft(victims: Sequence[Victim], *, now_s: float, own_backlog_s: float, patience: Patience) -> Theft:
    """The oldest due batch of the device with the most queued seconds among stages that the thief can run.

    The highest priority that waits anywhere comes first. A batch is taken only if the thief, its own backlog and the
    price of leaving counted in, is done with it before the victim would be done with everything: else it stays.
    """
    priorities = {lane.priority for victim in victims for lane in victim.lanes}
    if not priorities:
        return _nothing(TheftCode.NO_VICTIM, "nothing to steal: no other device has work for its models")
    until: list[float] = []
    for priority in sorted(priorities, reverse=True):
        for victim, lanes in _richest_first(victims, priority):
            for index in lanes:
                candidate = victim.lanes[index]
                due_s = candidate.due_s(patience.idle, patience.max_passes)
                if due_s > now_s:
                    until.append(due_s)
                    continue
                if size := _paying_size(candidate, victim, own_backlog_s):
                    what = f"steals {candidate.stage} x{size} from {victim.device}"
                    why = Reason(TheftCode.STOLEN, f"{what}, which has {victim.backlog_s:.1f} s to do")
                    return Theft(victim.device, index, size, None, why)
    if until:
        return _nothing(TheftCode.NOT_DUE, "nothing to steal yet: others hold small batches to fill", min(until))
    return _nothing(TheftCode.DOES_NOT_PAY, "stealing does not pay: the work is done sooner where it is")


def _richest_first(victims: Sequence[Victim], priority: int) -> list[tuple[Victim, list[int]]]:
    """The victims with lanes of that priority, the most seconds in these first; their lanes, the oldest first."""
    found: list[tuple[float, str, Victim, list[int]]] = []
    for victim in victims:
        by_age = sorted(range(len(victim.lanes)), key=[lane.since_s for lane in victim.lanes].__getitem__)
        lanes = [index for index in by_age if victim.lanes[index].priority == priority]
        if lanes:
            seconds = sum(victim.lane_s[index] for index in lanes)
            found.append((-seconds, victim.device, victim, lanes))
    return [(victim, lanes) for _, _, victim, lanes in sorted(found, key=lambda one: one[:2])]
