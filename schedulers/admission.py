"""How many more tasks to let in: bounded open work, so that memory and disk stay flat however many captions wait.

It owns the decisions; it does not know where tasks come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from imgdiffd.pipeline import Task

_ASK_SHARE = 8  # asking for less than an eighth of the bound would be a query for every finished batch
_BACKGROUND_SHARE = 8  # background work has an eighth as many open tasks, beside the others' bound


def background_bound(max_open: int) -> int:
    """How many background tasks may be open: enough for full batches, too few to be in anyone's way."""
    return max(1, max_open // _BACKGROUND_SHARE)


@dataclass(frozen=True, slots=True)
class Demand:
    """What admission looks at, for one class of work. `open` counts tasks queued, running or waiting for a device."""

    open: int
    queued: int
    max_open: int
    exhausted: bool  # the last refill had fewer tasks than there was room for, and nobody called wake since
    asking: bool  # a refill is under way
    held_back: str  # why nothing is to be dispatched at present; empty if it is
    open_bytes: int = 0  # of all classes together
    max_bytes: int | None = None
    full: bool = False  # the last refill brought only what did not fit into the bytes, and nothing has ended since


@dataclass(frozen=True, slots=True)
class Admission:
    """Ask for `room` tasks, or for none, for `reason`."""

    room: int
    reason: str


def admit(intake: Demand) -> Admission:
    """How many tasks to ask for now.

    A refill waits until it is worth a query, unless the queues have run dry.
    """
    room = intake.max_open - intake.open
    if intake.held_back:
        return Admission(0, intake.held_back)
    if intake.asking:
        return Admission(0, "a refill is under way")
    if intake.exhausted:
        return Admission(0, "no more work is waiting")
    if room <= 0:
        return Admission(0, f"{intake.open} tasks are open, the bound")
    if room * _ASK_SHARE < intake.max_open and intake.queued:
        return Admission(0, f"room for {room} only, and {intake.queued} are queued")
    if intake.max_bytes is not None and intake.open_bytes:
        left = intake.max_bytes - intake.open_bytes
        if left <= 0 or intake.full or (left * _ASK_SHARE < intake.max_bytes and intake.queued):
            return Admission(0, f"open work takes {intake.open_bytes / 1e9:.1f} GB of {intake.max_bytes / 1e9:.1f}")
    return Admission(room, f"room for {room} of {intake.max_open}")


def admit_in_order(usual: Demand, *, background_open: int, background_exhausted: bool) -> Admission:
    """What to ask for of two classes: of the background's only while there is nothing else to ask for."""
    if not usual.exhausted:
        return admit(usual)
    bound = background_bound(usual.max_open)
    return admit(replace(usual, open=background_open, max_open=bound, exhausted=background_exhausted))


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
