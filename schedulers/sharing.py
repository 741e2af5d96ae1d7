"""How the last tasks of their kind are shared out, so that no device works on them for long while others are idle.

It owns that arithmetic; it does not know queues, or which tasks are the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """A device that could take tasks: when it is free, from now on, and the seconds that each would take there."""

    free_in_s: float
    item_s: float


def share(count: int, mine: DeviceLoad, others: Sequence[DeviceLoad]) -> int:
    """How many of `count` alike tasks are mine, where each in turn goes to whoever would end it first; ties are mine.

    For tasks that cost a device alike, that is the split whose last task ends soonest.
    """
    ends = [(hand.free_in_s + hand.item_s, number, hand.item_s) for number, hand in enumerate((mine, *others))]
    heapify(ends)
    taken = 0
    for _ in range(count):
        end_s, number, item_s = ends[0]
        taken += number == 0
        heapreplace(ends, (end_s + item_s, number, item_s))
    return taken
