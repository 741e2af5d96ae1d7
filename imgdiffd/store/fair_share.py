"""Fair share: jobs of equal priority have equally many tasks under way, whatever their size."""

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heapreplace

from imgdiffd.pipeline import Task


def fair_order(waiting: Mapping[int, Iterator[Task]], under_way: Mapping[int, int]) -> Iterator[Task]:
    """Yield the waiting tasks, each from the job with the fewest tasks under way; on a tie, from the oldest job.

    Lazy: a caller that takes a few tasks reads only those. Each task taken counts as under way.
    """
    turns = [(under_way.get(job, 0), job) for job in waiting]
    heapify(turns)
    while turns:
        count, job = turns[0]
        task = next(waiting[job], None)
        if task is None:
            heappop(turns)
            continue
        yield task
        heapreplace(turns, (count + 1, job))
