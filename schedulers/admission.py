"""How many more tasks to let in: bounded open work, so that memory and disk stay flat however many captions wait.

It owns the decision; it does not know where tasks come from.
"""

from dataclasses import dataclass

_ASK_SHARE = 8  # asking for less than an eighth of the bound would be a query for every finished batch


@dataclass(frozen=True, slots=True)
class Intake:
    """What admission looks at. `open` counts tasks queued, running or waiting for a device."""

    open: int
    queued: int
    max_open: int
    exhausted: bool  # the last refill had fewer tasks than there was room for, and nobody called wake since
    asking: bool  # a refill is under way
    held_back: str  # why nothing is to be dispatched at present; empty if it is


@dataclass(frozen=True, slots=True)
class Admission:
    """Ask for `room` tasks, or for none, for `reason`."""

    room: int
    reason: str


def admit(intake: Intake) -> Admission:
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
    return Admission(room, f"room for {room} of {intake.max_open}")
