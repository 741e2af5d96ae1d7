"""The laws of order within a device's deque."""

from imgdiffd.pipeline import Stage, Task
from imgdiffd.schedulers.queues import Entry, Lane


def entry(item: int, priority: int) -> Entry:
    return Entry(Task(item, Stage.GENERATE, 0, "g", priority), 0.0)


def test_higher_priority_goes_first_then_arrival() -> None:
    lane = Lane()
    for item, priority in ((1, 0), (2, 1), (3, 0), (4, 1)):
        lane.push(entry(item, priority))
    assert [one.task.item for one in lane.take(3, 128)] == [2, 4, 1]
    assert len(lane) == 1


def test_low_priority_gets_its_part_of_a_busy_lane() -> None:
    lane = Lane()
    lane.push(entry(0, 0))
    lane.push(entry(1, 1))
    batches = []
    for urgent in range(10, 30, 2):
        for item in (urgent, urgent + 1):
            lane.push(entry(item, 2))
        batches.append([one.task.item for one in lane.take(2, 8)])
    assert batches[:8] == [[urgent, urgent + 1] for urgent in range(10, 26, 2)]
    assert batches[8:] == [[1, 0], [26, 27]]


def test_task_put_back_goes_before_those_that_came_after_it() -> None:
    lane = Lane()
    lane.push(entry(1, 0))
    lane.push(entry(2, 0))
    (first,) = lane.take(1, 128)
    lane.push_front(first)
    assert [one.task.item for one in lane.take(2, 128)] == [1, 2]
