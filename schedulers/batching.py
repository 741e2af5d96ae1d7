"""Decides which batch a device takes next from its own deque, and when waiting for a fuller one pays."""

from collections.abc import Sequence
from dataclasses import dataclass

from imgdiffd.pipeline import DEPTH, Stage
from imgdiffd.schedulers.reasons import BatchCode, Reason, SlotCode


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a batch that is not full may be held, in multiples of the seconds that it would take.

    `busy` counts while the device has other work: waiting costs no device time, but it delays the item. `idle` counts
    while it has none. A lane is also served after `max_passes` batches of the device from other lanes, full or not.
    """

    busy: float = 200.0
    idle: float = 0.5
    max_passes: int = 128


@dataclass(frozen=True, slots=True)
class BatchOption:
    """What waits in one lane of a deque, or as one part of a failed batch (`suspect`), as a device would run it."""

    stage: Stage
    group: str
    count: int
    priority: int
    since_s: float  # the arrival of the oldest
    passes: int
    limit: int  # the most items that a batch may have on the device that asks
    batch_s: float  # the seconds that the batch would take there
    fillable: bool  # tasks of the group are open further upstream
    suspect: bool = False
    feeds: bool = False  # devices that cannot run the stage themselves will soon lack what follows it
    share: int | None = None  # of the last tasks of their kind, those that no other device would end sooner

    @property
    def size(self) -> int:
        """The items of the batch if it is taken now."""
        if self.suspect:
            return self.count
        return min(self.count, self.limit, self.count if self.share is None else self.share)

    def due_s(self, patience: float, max_passes: int) -> float:
        """When the batch may run, on the clock of `since_s`; in the past where there is nothing to wait for."""
        if self.suspect or self.count >= self.limit or not self.fillable or self.passes >= max_passes:
            return self.since_s
        return self.since_s + patience * self.batch_s


@dataclass(frozen=True, slots=True)
class BatchChoice:
    """Take the candidate at `index` of those given; or, where that is None, look again at `until_s` or at a change."""

    index: int | None
    until_s: float | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Slot:
    """Whether a device may get another batch now; if not, when to look again, or at a change."""

    free: bool
    until_s: float | None
    reason: Reason


def find_slot(
    *,
    now_s: float,
    in_flight: int,
    max_in_flight: int,
    suspect_runs: bool,
    head_in_s: float,
    rest_s: float,
    ahead_s: float,
) -> Slot:
    """Whether there is room beside what runs: a batch that needs `head_in_s` more, and `rest_s` of others behind it.

    An idle device always has room. The next batch is sent only when all that need less than `ahead_s` more: early
    enough that the device never waits for it, late enough that others may still steal it and that what has become
    ready meanwhile goes first.
    """
    if in_flight == 0:
        return Slot(True, None, Reason(SlotCode.IDLE, "idle"))
    if in_flight >= max_in_flight:
        return Slot(False, None, Reason(SlotCode.BOUND, f"{in_flight} batches are in flight"))
    if suspect_runs:
        why = "retries a part of a failed batch, with nothing beside it"
        return Slot(False, None, Reason(SlotCode.RETRY, why))
    free_in_s = head_in_s + rest_s
    if free_in_s > ahead_s:
        # Where the others alone need longer, or the first is overdue, time alone changes nothing.
        until_s = now_s + free_in_s - ahead_s if head_in_s > 0 and rest_s <= ahead_s else None
        return Slot(False, until_s, Reason(SlotCode.BUSY, f"busy for {free_in_s:.1f} s more"))
    return Slot(True, None, Reason(SlotCode.AHEAD, "the next batch is sent ahead"))


def choose_batch(
    candidates: Sequence[BatchOption], *, now_s: float, idle: bool, hungry: bool, patience: Patience
) -> BatchChoice:
    """The most downstream batch that is due: higher priority first, then what feeds others, then deeper, then older.

    `idle`: nothing runs on the device. `hungry`: it also found nothing to steal, so that only the short patience
    counts. A lane passed over too often comes before all others; of several, the one passed over most often, so that
    none starves however many there are. Suspects wait until the device is idle, and keep others from being taken once
    it is their turn.
    """
    if not candidates:
        return BatchChoice(None, None, Reason(BatchCode.NOTHING_QUEUED, "nothing is queued"))
    factor = patience.idle if hungry else patience.busy
    due = [candidate.due_s(factor, patience.max_passes) for candidate in candidates]
    ready = [index for index, at_s in enumerate(due) if at_s <= now_s]
    if not ready:
        until_s = min(due)
        what = f"{len(candidates)} small batch{'es' if len(candidates) > 1 else ''}"
        why = f"holds {what} for {until_s - now_s:.1f} s to fill"
        return BatchChoice(None, until_s, Reason(BatchCode.HOLDING, why))

    def rank(index: int) -> tuple[int, int, bool, int, float]:
        one = candidates[index]
        overdue = one.passes if one.passes >= patience.max_passes else 0
        return -overdue, -one.priority, not one.feeds, -DEPTH[one.stage], one.since_s

    best = min(ready, key=rank)
    one = candidates[best]
    if one.suspect and not idle:
        why = f"waits to run {one.stage} of a failed batch with nothing beside it"
        return BatchChoice(None, None, Reason(BatchCode.NOT_ALONE, why))
    code, why = _why(one, patience.max_passes)
    rule = "feeds other devices" if one.feeds else "most downstream"
    return BatchChoice(best, None, Reason(code, f"{one.stage} x{one.size}: {rule}, {why}"))


def _why(one: BatchOption, max_passes: int) -> tuple[BatchCode, str]:
    """What made it the turn of the batch that is taken."""
    if one.passes >= max_passes:
        return BatchCode.PASSED_OVER, f"passed over {one.passes} times"
    if one.suspect:
        return BatchCode.RETRY, "retried on its own"
    if one.size < min(one.count, one.limit):
        return BatchCode.SHARED, "the last, shared with others"
    return (BatchCode.FULL, "full") if one.count >= one.limit else (BatchCode.DUE, "due")
