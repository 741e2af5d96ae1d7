"""The deque of one device: tasks in lanes by stage and group, and parts of failed batches retried on their own."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from imgdiffd.pipeline import LaneKey, Stage, Task


@dataclass(frozen=True, slots=True)
class Entry:
    """A task and when it became ready, in seconds of the scheduler's clock."""

    task: Task
    since_s: float


class Lane:
    """Tasks of one stage and group: higher priority first, then first come, first served.

    A priority that had no part in `max_passes` batches of the lane goes first in the next one.
    """

    def __init__(self) -> None:
        self._deques: dict[int, deque[Entry]] = {}
        self._left_out: dict[int, int] = {}  # priority -> batches of this lane without any of it, since its last
        self._count = 0
        self.passes = 0  # batches that the owner took from other lanes while this one waited

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        for priority in sorted(self._deques, reverse=True):
            yield from self._deques[priority]

    @property
    def priority(self) -> int:
        """The highest priority waiting."""
        return max(self._deques)

    @property
    def since_s(self) -> float:
        """When the oldest task became ready."""
        return min(entries[0].since_s for entries in self._deques.values())

    def push(self, entry: Entry) -> None:
        """Add at the end of its priority."""
        self._deques.setdefault(entry.task.priority, deque()).append(entry)
        self._count += 1

    def push_front(self, entry: Entry) -> None:
        """Add at the head of its priority: the task comes back from a batch that failed."""
        self._deques.setdefault(entry.task.priority, deque()).appendleft(entry)
        self._count += 1

    def take(self, count: int, max_passes: int) -> tuple[Entry, ...]:
        """Remove the first `count` tasks, or all where there are fewer."""
        taken: list[Entry] = []
        left_out = self._left_out

        def rank(priority: int) -> tuple[int, int]:
            batches = left_out.get(priority, 0)
            return -batches if batches >= max_passes else 0, -priority

        for priority in sorted(self._deques, key=rank):
            entries = self._deques[priority]
            left_out[priority] = left_out.get(priority, 0) + 1 if len(taken) == count else 0
            while entries and len(taken) < count:
                taken.append(entries.popleft())
            if not entries:
                del self._deques[priority], left_out[priority]
        self._count -= len(taken)
        self.passes = 0
        return tuple(taken)

    def drop(self, unwanted: Callable[[Task], bool]) -> tuple[Task, ...]:
        """Remove the tasks for which `unwanted` is true; returns them."""
        dropped: list[Task] = []
        for priority, entries in list(self._deques.items()):
            dropped += [entry.task for entry in entries if unwanted(entry.task)]
            kept = deque(entry for entry in entries if not unwanted(entry.task))
            if kept:
                self._deques[priority] = kept
            else:
                del self._deques[priority]
                self._left_out.pop(priority, None)
        self._count -= len(dropped)
        return tuple(dropped)


@dataclass(slots=True)
class Suspects:
    """A part of a failed batch: runs as it is, with nothing else on the device."""

    entries: tuple[Entry, ...]
    passes: int = 0

    @property
    def key(self) -> LaneKey:
        """Stage and group, equal for all of them."""
        task = self.entries[0].task
        return task.stage, task.group


class DeviceQueue:
    """Everything that waits for one device. Empty lanes do not exist."""

    def __init__(self) -> None:
        self.lanes: dict[LaneKey, Lane] = {}
        self.suspects: list[Suspects] = []

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values())) + sum(len(part.entries) for part in self.suspects)

    def count(self, stage: Stage) -> int:
        """Tasks of a stage in lanes."""
        return sum(len(lane) for key, lane in self.lanes.items() if key[0] is stage)

    def push(self, entries: Iterable[Entry]) -> None:
        """Add tasks that became ready, in order."""
        for entry in entries:
            self.lanes.setdefault((entry.task.stage, entry.task.group), Lane()).push(entry)

    def push_front(self, entries: Iterable[Entry]) -> None:
        """Put tasks back where they were taken from, in their order."""
        for entry in reversed(tuple(entries)):
            self.lanes.setdefault((entry.task.stage, entry.task.group), Lane()).push_front(entry)

    def take(self, key: LaneKey, count: int, max_passes: int) -> tuple[Entry, ...]:
        """Remove up to `count` tasks of a lane for a batch of the owner; every other lane was passed over."""
        taken = self.steal(key, count, max_passes)
        for other, lane in self.lanes.items():
            lane.passes += other != key
        for part in self.suspects:
            part.passes += 1
        return taken

    def steal(self, key: LaneKey, count: int, max_passes: int) -> tuple[Entry, ...]:
        """Remove up to `count` tasks of a lane for another device."""
        lane = self.lanes[key]
        taken = lane.take(count, max_passes)
        if not lane:
            del self.lanes[key]
        return taken

    def take_suspects(self, index: int) -> tuple[Entry, ...]:
        """Remove one part of a failed batch; every lane and the other parts were passed over."""
        taken = self.suspects.pop(index).entries
        for lane in self.lanes.values():
            lane.passes += 1
        for part in self.suspects:
            part.passes += 1
        return taken

    def drop(self, unwanted: Callable[[Task], bool]) -> tuple[Task, ...]:
        """Remove the tasks for which `unwanted` is true; returns them."""
        dropped: list[Task] = []
        for key, lane in list(self.lanes.items()):
            dropped += lane.drop(unwanted)
            if not lane:
                del self.lanes[key]
        kept: list[Suspects] = []
        for part in self.suspects:
            dropped += [entry.task for entry in part.entries if unwanted(entry.task)]
            rest = tuple(entry for entry in part.entries if not unwanted(entry.task))
            if rest:
                kept.append(Suspects(rest, part.passes))
        self.suspects = kept
        return tuple(dropped)

    def clear(self) -> tuple[tuple[Entry, ...], tuple[Suspects, ...]]:
        """Remove everything: the tasks in the order of their arrival, and the suspects."""
        entries = sorted((entry for lane in self.lanes.values() for entry in lane), key=lambda entry: entry.since_s)
        suspects = tuple(self.suspects)
        self.lanes.clear()
        self.suspects.clear()
        return tuple(entries), suspects
