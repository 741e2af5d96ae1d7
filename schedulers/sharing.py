"""Decides how the last tasks of their kind are shared out, so that no device works on them while others are idle."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """What a device that could take tasks has to do: the seconds until it is free, and those of each task there."""

    free_in_s: float
    item_s: float


def share(count: int, mine: DeviceLoad, others: Sequence[DeviceLoad]) -> int:
    """How many of `count` like tasks are mine, where each in turn goes to whoever would end it first; ties are mine.

    For tasks that each take a device equally long, that is the split whose last task ends soonest.
    """
    ends = [(load.free_in_s + load.item_s, number, load.item_s) for number, load in enumerate((mine, *others))]
    heapify(ends)
    taken = 0
    for _ in range(count):
        end_s, number, item_s = ends[0]
        taken += number == 0
        heapreplace(ends, (end_s + item_s, number, item_s))
    return taken
