"""Jobs of equal priority share what is under way: a huge one does not starve a small one."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgdiffd.pipeline import Stage, Task
from imgdiffd.store import Store
from imgdiffd.store.fair_share import fair_order
from tests.fakes.answers import captions
from tests.fakes.store_driver import MANY, advance_to, record, submit

pytestmark = pytest.mark.anyio


def jobs(tasks: list[Task], last_of_first: int) -> list[int]:
    return [1 if task.item <= last_of_first else 2 for task in tasks]


async def test_a_small_job_is_admitted_at_once_beside_a_huge_one(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, captions(300), name="huge")
        held = [task.item for task in await store.ready_tasks(64, ())]
        await submit(store, captions(20, start=1000), name="small")
        assert jobs(await store.ready_tasks(16, held), 300) == [2] * 16
        assert Counter(jobs(await store.ready_tasks(64, held), 300)) == {2: 20, 1: 44}


async def test_equal_jobs_take_turns(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, captions(50), name="one")
        await submit(store, captions(50, start=1000), name="other")
        assert jobs(await store.ready_tasks(6, ()), 50) == [1, 2, 1, 2, 1, 2]


async def test_higher_priority_and_downstream_work_still_go_first(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, captions(4), name="begun")
        await advance_to(store, Stage.GENERATE)
        await submit(store, captions(4, start=1000), name="usual")
        await submit(store, captions(4, start=2000), name="urgent", priority=1)
        tasks = await store.ready_tasks(MANY, ())
        assert [task.item for task in tasks] == [1, 2, 3, 4, 9, 10, 11, 12, 5, 6, 7, 8]


async def test_background_jobs_come_last_even_further_downstream(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, captions(3), name="background", priority=-1)
        await advance_to(store, Stage.GENERATE)
        await submit(store, captions(3, start=1000), name="usual")
        assert [task.item for task in await store.ready_tasks(MANY, ())] == [4, 5, 6, 1, 2, 3]
        assert [task.item for task in await store.ready_tasks(4, [4])] == [5, 6, 1, 2]


async def test_what_a_job_has_under_way_in_any_stage_counts(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, captions(20), name="ahead")
        first = await store.ready_tasks(8, ())
        await record(store, first)
        await submit(store, captions(20, start=1000), name="behind")
        held = [task.item for task in first]
        found = await store.ready_tasks(10, held)
        assert jobs(found, 20) == [2] * 8 + [1, 2]


async def test_turns_read_no_more_than_they_give() -> None:
    read: list[int] = []

    def rows(job: int) -> list[Task]:
        return [Task(100 * job + number, Stage.REWRITE, 0, "g", 0, 0) for number in range(50)]

    def reading(job: int) -> Iterator[Task]:
        for row in rows(job):
            read.append(row.item)
            yield row

    turns = fair_order({1: reading(1), 2: reading(2)}, {1: 3})
    assert [next(turns).item for _ in range(6)] == [200, 201, 202, 100, 203, 101]
    assert len(read) == 6
