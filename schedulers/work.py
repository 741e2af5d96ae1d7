"""What the scheduler sends out, and what it asks of whoever does the work."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from imgdiffd.pipeline import LaneKey, Stage, Task


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks of one stage and one group that run together; `id` is unique within a scheduler.

    `deadline_s` is how long the device may take once it has begun this batch, however long others were ahead of it.
    """

    id: int
    stage: Stage
    group: str
    tasks: tuple[Task, ...]
    deadline_s: float

    @property
    def key(self) -> LaneKey:
        """Stage and group."""
        return self.stage, self.group

    @property
    def items(self) -> tuple[int, ...]:
        """The items, in the order of the tasks."""
        return tuple(task.item for task in self.tasks)


class Work(Protocol):
    """The world outside: where tasks come from, what runs them, who is told of failures.

    Any error that is not named below ends the scheduler's `run` with it.
    """

    async def refill(self, room: int, held: Collection[int]) -> Sequence[Task]:
        """At most `room` tasks that are ready and whose item is not in `held`.

        Background ones come after all others; within a class the most downstream come first. Fewer than `room` means
        that there are no more; it is asked again after `Scheduler.wake` or at the next poll.
        """
        ...

    async def execute(self, device: str, batch: Batch) -> Sequence[Task]:
        """Run `batch` on `device`, record the results, and return what its items need next.

        An item without a task in the answer has left the scheduler. Up to `in_flight` calls for one device run at
        once; the device works on them in the order of the calls. Raises OutOfMemoryError or StageError where the
        worker lives on, or WorkerDiedError, after which the device gets nothing until `Scheduler.device_up`; in all
        three cases nothing was recorded.
        """
        ...

    async def record_crashes(self, tasks: Sequence[Task]) -> None:
        """Count a crash against each item, which was alone in its batch; `crashes` of the tasks is the new count."""
        ...

    async def quarantine(self, task: Task, cause: str) -> None:
        """Give the item up for `cause`: it crashed alone too often."""
        ...
