"""The scheduler's loop is paused, stopped, told to forget, and fails."""

import asyncio

import anyio
import pytest

from imgdiffd.errors import StageError, WorkError
from imgdiffd.pipeline import Stage
from imgdiffd.schedulers.reasons import AdmissionCode
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.work import Batch
from tests.fakes.work import FakeWork, last_stage, load_of, on_virtual_time, running, tasks


@on_virtual_time
async def test_a_paused_scheduler_resumes_where_it_was() -> None:
    work = FakeWork(tasks(range(40), Stage.GENERATE), following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)
        scheduler.pause()
        await anyio.sleep(100.0)
        assert scheduler.statistics().running == 0
        assert scheduler.statistics().held_back == ("paused",)
        assert all(ran.begun_s <= 0.5 or ran.begun_s == 1.0 for ran in work.ran)
        scheduler.resume()
        await scheduler.wait_idle()
    assert len(work.ended) == 40


@on_virtual_time
async def test_idle_device_of_a_paused_scheduler_says_so() -> None:
    work = FakeWork(tasks(range(8)))
    async with running(work, scheduler := Scheduler(work), "a"):
        await anyio.sleep(0.5)
        scheduler.pause("the disk is full")
        assert load_of(scheduler, "a").reason_code != AdmissionCode.HELD_BACK, "what runs goes on"
        await anyio.sleep(10.0)
        load = load_of(scheduler, "a")
        assert (load.reason_code, load.reason) == (AdmissionCode.HELD_BACK, "the disk is full")


@on_virtual_time
async def test_each_reason_to_pause_is_resumed_by_itself() -> None:
    work = FakeWork(tasks(range(4)))
    scheduler = Scheduler(work)
    scheduler.pause("disk")
    scheduler.pause()
    async with running(work, scheduler, "a"):
        scheduler.resume()
        await anyio.sleep(100.0)
        assert not work.ran
        now = scheduler.statistics()
        assert (now.admission_code, now.admission) == (AdmissionCode.HELD_BACK, "disk")
        scheduler.resume("disk")
        await scheduler.wait_idle()
    assert len(work.ended) == 4


@on_virtual_time
async def test_drain_waits_for_what_runs_and_starts_nothing_more() -> None:
    work = FakeWork(tasks(range(40), Stage.GENERATE), seconds=lambda device, batch: 10.0, following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a", "b"):
        await anyio.sleep(5.0)
        running_then = scheduler.statistics().running
        await scheduler.drain()
        assert anyio.current_time() == pytest.approx(10.0, abs=0.1)
        assert scheduler.statistics().running == 0
        with pytest.raises(RuntimeError, match="runs once"):
            await scheduler.run()
    assert len(work.ended) == running_then == 8


@on_virtual_time
async def test_batch_that_fails_during_a_drain_is_not_retried_in_it() -> None:
    work = FakeWork(tasks(range(4), Stage.GENERATE), failing=lambda device, batch: StageError("broken"))
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)
        await scheduler.drain()
    assert len(work.ran) == 1
    assert len(work.ready) == 4


@on_virtual_time
async def test_drain_of_a_scheduler_that_does_not_run_returns() -> None:
    await Scheduler(FakeWork()).drain()


@on_virtual_time
async def test_forgotten_items_that_are_queued_never_run() -> None:
    work = FakeWork(tasks(range(40), Stage.GENERATE), following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)
        work.cancel(range(20, 40))
        assert scheduler.statistics().open == 20
        await scheduler.wait_idle()
    assert not {item for ran in work.ran for item in ran.batch.items} & set(range(20, 40))
    assert [work.ended[item] for item in (19, 20)] == ["done", "cancelled"]


@on_virtual_time
async def test_forgotten_items_finish_their_batch_and_go_no_further() -> None:
    work = FakeWork(tasks(range(4), Stage.GENERATE))
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)
        scheduler.forget([0, 1])  # the store records them all the same
        del work.ready[2]  # the store refuses this one, of which the scheduler was told nothing
        await anyio.sleep(0.6)
        assert scheduler.statistics().open == 1
        await anyio.sleep(4.0)
        assert not any({0, 1, 2} & set(ran.batch.items) for ran in work.ran[1:])


@on_virtual_time
async def test_forgotten_item_whose_batch_fails_is_not_tried_again() -> None:
    work = FakeWork(tasks(range(4), Stage.GENERATE), failing=lambda device, batch: StageError("broken"))
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)
        work.cancel([0, 1])
        await scheduler.wait_idle()
    assert [ran.batch.items for ran in work.ran if {0, 1} & set(ran.batch.items)] == [(0, 1, 2, 3)]
    assert set(work.charged) == {2, 3}


@on_virtual_time
async def test_item_forgotten_while_it_is_being_let_in_stays_out() -> None:
    work = FakeWork(tasks(range(4)), refill_s=1.0)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)
        work.cancel([1])
        await scheduler.wait_idle()
    assert work.ended[1] == "cancelled"
    assert not any(1 in ran.batch.items for ran in work.ran)


@on_virtual_time
async def test_unexpected_error_of_the_work_ends_the_run_with_it() -> None:
    def failing(device: str, batch: Batch) -> WorkError | None:
        raise ZeroDivisionError

    scheduler = Scheduler(work := FakeWork(tasks(range(4)), failing=failing))
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with running(work, scheduler, "a"):
            await scheduler.wait_idle()
            await anyio.sleep(1)


@on_virtual_time
async def test_cancelled_run_leaves_no_task_behind() -> None:
    work = FakeWork(tasks(range(40)))
    before = len(asyncio.all_tasks())
    async with running(work, Scheduler(work), "a", "b"):
        await anyio.sleep(2.5)
    assert len(asyncio.all_tasks()) == before
