"""How many more tasks to let in: open work is bounded, so that memory and disk stay flat however many captions wait."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from imgdiffd.pipeline import Task
from imgdiffd.schedulers.reasons import AdmissionCode, Reason

_ASK_SHARE = 8  # asking for less than an eighth of the bound would be a query for every finished batch
_BACKGROUND_SHARE = 8  # background work has an eighth as many open tasks, beside the others' bound


def background_bound(max_open: int) -> int:
    """How many background tasks may be open: enough for full batches, too few to be in anyone's way."""
    return max(1, max_open // _BACKGROUND_SHARE)


@dataclass(frozen=True, slots=True)
class OpenWork:
    """The tasks let in and not yet done, by class; `queued` of them wait on a device's deque."""

    usual: int = 0
    background: int = 0
    queued: int = 0
    open_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """Ask for `room` tasks, or for none, for `reason`."""

    room: int
    reason: Reason


class Refills:
    """Decides how many tasks to ask for, from what is open and from what it remembers of earlier refills.

    At most `max_open` usual tasks are open, and `max_bytes` of both classes together; background tasks have an eighth
    of `max_open` to themselves and are asked for only once a refill found no more usual ones. What a refill did not
    find is taken to be missing until `wake`, or for `poll_s`.
    """

    def __init__(self, *, max_open: int, max_bytes: int | None, poll_s: float) -> None:
        self._max_open = max_open
        self._max_bytes = max_bytes
        self._poll_s = poll_s
        self._asking = False
        self._asked_s = 0.0
        self._asked_room = 0
        self._woken = False  # since the refill under way began: it may not have seen what is new
        self._gone: set[int] = set()  # items forgotten since the last refill began
        self._exhausted = False  # the last refill brought fewer usual tasks than it might have
        self._background_exhausted = False
        self._full = False  # it brought only what did not fit into the bytes, and nothing has ended since

    def wake(self) -> None:
        """New tasks may be ready."""
        self._woken = True
        self._exhausted = self._background_exhausted = self._full = False

    def wake_background(self) -> None:
        """New background tasks may be ready; nothing is known of usual ones."""
        self._woken = self._woken or self._asking
        self._background_exhausted = False

    def room_made(self) -> None:
        """A batch came back, so that open work may take fewer bytes."""
        self._full = False

    def forget(self, items: Collection[int]) -> None:
        """Items were dropped: those that the refill under way brings stay out."""
        self._full = False
        self._gone.update(items)

    def decide(self, work: OpenWork, *, now_s: float, held_back: str = "") -> Admission:
        """How many tasks to ask for now; none while `held_back` says why nothing is to be sent.

        A refill waits until it is worth a query, unless the queues have run dry.
        """
        background = self._exhausted and self._fresh(now_s)
        bound = background_bound(self._max_open) if background else self._max_open
        room = bound - (work.background if background else work.usual)
        reason = self._not_now(now_s, held_back) or self._no_room(work, room, bound)
        if reason:
            return Admission(0, reason)
        return Admission(room, Reason(AdmissionCode.ROOM, f"there is room for {room} of {bound}"))

    def asked(self, room: int, now_s: float) -> None:
        """A refill of at most `room` tasks begins."""
        self._asking, self._woken = True, False
        self._asked_s, self._asked_room = now_s, room
        self._gone.clear()

    def answered(self, tasks: Sequence[Task], work: OpenWork) -> tuple[Task, ...]:
        """The refill brought `tasks`. Returns those to let in, beside the `work` that is open now."""
        entrance = let_in(
            [task for task in tasks if task.item not in self._gone],
            background_room=background_bound(self._max_open) - work.background,
            open_bytes=work.open_bytes,
            max_bytes=self._max_bytes,
        )
        usual = sum(not task.background for task in tasks)
        saw_all = not entrance.cut and not self._woken
        self._asking = False
        self._full = entrance.cut and not entrance.tasks
        self._exhausted = usual < self._asked_room and saw_all
        self._background_exhausted = len(tasks) < self._asked_room and not entrance.crowded and saw_all
        return entrance.tasks

    def is_dry(self, now_s: float) -> bool:
        """Whether a refill found that nothing more of either class waits, and none is under way."""
        return not self._asking and self._nothing_waits(now_s)

    def _fresh(self, now_s: float) -> bool:
        return now_s < self._asked_s + self._poll_s

    def _nothing_waits(self, now_s: float) -> bool:
        return self._exhausted and self._background_exhausted and self._fresh(now_s)

    def _not_now(self, now_s: float, held_back: str) -> Reason | None:
        if held_back:
            return Reason(AdmissionCode.HELD_BACK, held_back)
        if self._asking:
            return Reason(AdmissionCode.ASKING, "a refill is under way")
        if self._nothing_waits(now_s):
            return Reason(AdmissionCode.EXHAUSTED, "no more work is waiting")
        return None

    def _no_room(self, work: OpenWork, room: int, bound: int) -> Reason | None:
        if room <= 0:
            return Reason(AdmissionCode.BOUND, f"{bound - room} tasks are open, as many as may be")
        if room * _ASK_SHARE < bound and work.queued:
            return Reason(AdmissionCode.LITTLE_ROOM, f"there is room for only {room}, and {work.queued} are queued")
        if self._max_bytes is None or not work.open_bytes:
            return None
        left = self._max_bytes - work.open_bytes
        if left <= 0 or self._full or (left * _ASK_SHARE < self._max_bytes and work.queued):
            taken = f"{work.open_bytes / 1e9:.1f} GB of {self._max_bytes / 1e9:.1f}"
            return Reason(AdmissionCode.BYTES, f"open work takes {taken}")
        return None


@dataclass(frozen=True, slots=True)
class Entrance:
    """What is let in of a refill, in its order; whether the bytes kept some out, or the background's bound."""

    tasks: tuple[Task, ...]
    cut: bool
    crowded: bool


def let_in(tasks: Sequence[Task], *, background_room: int, open_bytes: int, max_bytes: int | None) -> Entrance:
    """The tasks that fit: background ones into their own room, all of them into the bytes.

    None jumps ahead of one that has to wait for bytes. A single task larger than the bound is let in alone.
    """
    kept: list[Task] = []
    crowded = False
    for task in tasks:
        if task.background and background_room <= 0:
            crowded = True
            continue
        if max_bytes is not None and open_bytes and open_bytes + task.open_bytes > max_bytes:
            return Entrance(tuple(kept), True, crowded)
        background_room -= task.background
        open_bytes += task.open_bytes
        kept.append(task)
    return Entrance(tuple(kept), False, crowded)
