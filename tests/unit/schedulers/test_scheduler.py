"""The laws of the scheduler's loop, on virtual time."""

import itertools
from dataclasses import replace

import anyio
import pytest

from imgdiffd.pipeline import Role, Stage, Task
from imgdiffd.schedulers.batching import Patience
from imgdiffd.schedulers.cost_table import first_guess_s
from imgdiffd.schedulers.reasons import AdmissionCode, BatchCode, TheftCode
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.work import Batch
from tests.fakes.work import ALL_ROLES, FakeWork, last_stage, load_of, on_virtual_time, running, tasks

NO_CAPTIONER = ALL_ROLES - {Role.CAPTIONER}


@on_virtual_time
async def test_every_item_goes_through_every_stage() -> None:
    work = FakeWork(tasks(range(20)))
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a", "b"):
        await scheduler.wait_idle()
    assert work.ended == dict.fromkeys(range(20), "done")


@on_virtual_time
async def test_owner_prefers_the_most_downstream_batch() -> None:
    work = FakeWork([*tasks(range(4), Stage.GENERATE), *tasks(range(4, 8), Stage.DESCRIBE)], following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    assert work.stages("a") == [Stage.DESCRIBE, Stage.GENERATE]


@on_virtual_time
async def test_idle_device_steals_from_a_loaded_one() -> None:
    work = FakeWork(tasks(range(40), Stage.GENERATE), seconds=lambda device, batch: 30.0, following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(1)
        work.up("b")  # everything is queued on a
        await scheduler.wait_idle()
        now = scheduler.statistics()
        assert now.batches_by_reason[TheftCode.STOLEN] == now.steals > 0
        assert anyio.current_time() < 6 * 30.0
    assert work.stages("b").count(Stage.GENERATE) >= 4


@on_virtual_time
async def test_the_last_batch_is_shared_so_that_no_device_is_idle() -> None:
    work = FakeWork(tasks(range(4), Stage.GENERATE), seconds=lambda _, b: 8.0 * len(b.tasks), following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a", "b", "c", "d"):
        await scheduler.wait_idle()
    assert sorted(ran.device for ran in work.ran) == ["a", "b", "c", "d"]


@on_virtual_time
async def test_no_device_runs_a_stage_whose_models_it_lacks() -> None:
    work = FakeWork(tasks(range(40)))
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        work.up("b", NO_CAPTIONER)
        await scheduler.wait_idle()
    assert Stage.GENERATE in work.stages("b")
    assert not {Stage.DESCRIBE, Stage.CONTRAST} & set(work.stages("b"))
    assert set(work.ended.values()) == {"done"}


@on_virtual_time
async def test_the_only_rewriter_feeds_painters_before_they_run_out() -> None:
    def painted(task: Task) -> Task | None:
        return replace(task, stage=Stage.GENERATE) if task.stage is Stage.REWRITE else None

    def seconds(device: str, batch: Batch) -> float:
        return 10.0 * len(batch.tasks) if batch.stage is Stage.GENERATE else 1.0

    work = FakeWork(tasks(range(400)), seconds=seconds, following=painted)
    scheduler = Scheduler(work, max_open=64)
    async with running(work, scheduler, "a"):
        for name in ("b", "c"):
            work.up(name, ALL_ROLES - {Role.REWRITER})
        await scheduler.wait_idle()
    for name in ("b", "c"):
        ran = [one for one in work.ran if one.device == name]
        assert sum(one.ended_s - one.begun_s for one in ran) > 0.99 * (ran[-1].ended_s - ran[0].begun_s)
        assert {len(one.batch.tasks) for one in ran[:-3]} == {4}


@on_virtual_time
async def test_follow_up_runs_on_the_device_that_made_it() -> None:
    work = FakeWork(tasks(range(8), Stage.COMPARE), seconds=lambda device, batch: 0.5)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a", "b"):
        await scheduler.wait_idle()
        assert scheduler.statistics().steals == 0
    for item in range(8):
        assert len({ran.device for ran in work.ran if item in ran.batch.items}) == 1


@on_virtual_time
async def test_batches_never_mix_groups() -> None:
    work = FakeWork([*tasks(range(0, 20, 2), group="x"), *tasks(range(1, 20, 2), group="y")])
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()  # the fake refuses a mixed batch
    assert set(work.sizes(Stage.REWRITE)) == {10}


@on_virtual_time
async def test_priorities_share_a_batch_with_the_urgent_first() -> None:
    some = [*tasks(range(3), Stage.GENERATE), *tasks(range(3, 6), Stage.GENERATE, priority=1)]
    work = FakeWork(some, following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    assert [ran.batch.items for ran in work.ran] == [(3, 4, 5, 0), (1, 2)]


@on_virtual_time
async def test_next_batch_is_on_the_device_before_the_running_one_ends() -> None:
    work = FakeWork(tasks(range(40), Stage.GENERATE), following=last_stage)
    scheduler = Scheduler(work, ahead_s=2.0)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    assert work.most_in_flight == 8
    learnt = work.ran[2:]  # the first guess of the seconds is far from what the fake takes
    assert all(after.begun_s == before.ended_s for before, after in itertools.pairwise(learnt))


@on_virtual_time
async def test_one_batch_at_a_time_where_one_is_allowed() -> None:
    work = FakeWork(tasks(range(40), Stage.GENERATE), following=last_stage)
    scheduler = Scheduler(work, in_flight=1, ahead_s=1000.0)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    assert work.most_in_flight == 4


@on_virtual_time
async def test_open_work_is_bounded_however_much_waits() -> None:
    work = FakeWork(tasks(range(500)))
    scheduler = Scheduler(work, max_open=32)
    seen: list[int] = []
    async with running(work, scheduler, "a", "b"), anyio.create_task_group() as group:

        async def look() -> None:
            while True:
                seen.append(scheduler.statistics().open)
                await anyio.sleep(0.5)

        group.start_soon(look)
        await scheduler.wait_idle()
        group.cancel_scope.cancel()
    assert len(work.ended) == 500
    assert max(seen) == 32


@on_virtual_time
async def test_open_work_is_bounded_in_bytes_too() -> None:
    work = FakeWork([replace(task, open_bytes=7) for task in tasks(range(200))])
    scheduler = Scheduler(work, max_open_bytes=100)
    seen: list[int] = []
    async with running(work, scheduler, "a", "b"), anyio.create_task_group() as group:

        async def look() -> None:
            while True:
                seen.append(scheduler.statistics().open_bytes)
                await anyio.sleep(0.5)

        group.start_soon(look)
        await scheduler.wait_idle()
        group.cancel_scope.cancel()
    assert len(work.ended) == 200
    assert max(seen) == 98
    assert work.refills < 200


@on_virtual_time
async def test_background_work_yields_within_one_batch() -> None:
    work = FakeWork(tasks(range(1000), Stage.GENERATE, priority=-1), following=last_stage)
    scheduler = Scheduler(work, max_open=64)
    async with running(work, scheduler, "a", "b"):
        await anyio.sleep(10.5)
        work.add(*tasks(range(1000, 1040), Stage.GENERATE))
        scheduler.wake()
        await anyio.sleep(20.0)
    after = [ran.batch.tasks[0].priority for ran in work.ran if ran.begun_s > 12.0]
    assert after[:6] == [0] * 6
    assert -1 in after[8:], "it goes on once nothing else waits"


@on_virtual_time
async def test_urgent_work_is_stolen_before_own_background_work() -> None:
    work = FakeWork(tasks(range(40), Stage.GENERATE), seconds=lambda device, batch: 30.0, following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(1)
        work.up("b")  # everything urgent is queued on a
        work.add(*tasks(range(100, 108), Stage.LOCATE, priority=-1))
        scheduler.wake()
        await scheduler.wait_idle()
    begun_s = {stage: [ran.begun_s for ran in work.ran if ran.batch.stage is stage] for stage in Stage}
    assert len(begun_s[Stage.LOCATE]) == 2
    assert min(begun_s[Stage.LOCATE]) >= max(begun_s[Stage.GENERATE])


@on_virtual_time
async def test_downstream_work_of_the_store_is_let_in_first() -> None:
    work = FakeWork([*tasks(range(50)), *tasks(range(50, 54), Stage.DESCRIBE)], following=last_stage)
    scheduler = Scheduler(work, max_open=4)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    assert work.ran[0].batch.stage is Stage.DESCRIBE


@on_virtual_time
async def test_wake_lets_new_work_in_at_once() -> None:
    work = FakeWork()
    scheduler = Scheduler(work, poll_s=1000.0)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
        work.add(*tasks(range(4)))
        scheduler.wake()
        await anyio.sleep(0.1)
        assert scheduler.statistics().running == 4


@on_virtual_time
async def test_wake_during_a_refill_is_not_lost() -> None:
    work = FakeWork(refill_s=1.0)
    scheduler = Scheduler(work, poll_s=1000.0)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)  # the first refill has looked and found nothing
        work.add(*tasks(range(4)))
        scheduler.wake()
        await anyio.sleep(2.0)
        assert scheduler.statistics().open == 4


@on_virtual_time
async def test_work_that_nobody_announced_is_found_by_the_poll() -> None:
    work = FakeWork()
    scheduler = Scheduler(work, poll_s=5.0)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
        work.add(*tasks(range(4)))
        await anyio.sleep(10.1)
        assert scheduler.statistics().open == 4


@on_virtual_time
async def test_loop_sleeps_while_there_is_nothing_to_do() -> None:
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return anyio.current_time()

    work = FakeWork(tasks(range(1), Stage.RENDER), seconds=lambda device, batch: 1000.0)
    scheduler = Scheduler(work, poll_s=10.0, clock=clock)
    async with running(work, scheduler, "a"):
        await anyio.sleep(1000.0)
    assert looks < 1000


@on_virtual_time
async def test_low_priority_work_is_served_within_bounded_passes() -> None:
    urgent = tasks(range(10, 1000), Stage.RENDER, priority=5)
    work = FakeWork([*urgent, *tasks(range(1), Stage.REWRITE, group="h", priority=-5)], following=last_stage)
    scheduler = Scheduler(work, max_open=2000, patience=Patience(max_passes=16))
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    assert [ran.batch.stage for ran in work.ran].index(Stage.REWRITE) == 16


@on_virtual_time
async def test_small_batches_wait_for_upstream_work_that_fills_them() -> None:
    def one_of_four(task: Task) -> Task | None:
        return replace(task, stage=Stage.DESCRIBE) if task.item % 4 == 0 and task.stage is Stage.GENERATE else None

    work = FakeWork(
        tasks(range(32), Stage.GENERATE),
        seconds=lambda device, batch: 4.0 if batch.stage is Stage.GENERATE else 1.0,
        following=one_of_four,
    )
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    assert work.sizes(Stage.DESCRIBE) == [4, 4]


@on_virtual_time
async def test_idle_device_does_not_hold_a_small_batch_for_long() -> None:
    work = FakeWork(
        [*tasks(range(1), Stage.GENERATE), *tasks(range(1, 2), Stage.DESCRIBE)],
        seconds=lambda device, batch: 100.0 if batch.stage is Stage.GENERATE else 1.0,
        following=last_stage,
    )
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a", "b"):
        await scheduler.wait_idle()
    begun_s = next(ran for ran in work.ran if ran.batch.stage is Stage.DESCRIBE).begun_s
    assert begun_s == pytest.approx(first_guess_s("paper")[Stage.DESCRIBE] / 2, abs=0.02)


@on_virtual_time
async def test_statistics_tell_what_is_where_and_why() -> None:
    work = FakeWork(tasks(range(12), Stage.GENERATE), seconds=lambda device, batch: 10.0, following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(5.0)
        now = scheduler.statistics()
        a = load_of(scheduler, "a")
        assert (now.open, now.queued, now.running) == (12, 8, 4)
        assert (a.queued, a.in_flight, a.running_items, a.batches) == ({Stage.GENERATE: 8}, 1, 4, 1)
        assert a.busy_s == pytest.approx(5.0, abs=0.01)
        assert a.queued_s == pytest.approx(8 * first_guess_s("paper")[Stage.GENERATE])
        assert (a.reason_code, "most downstream" in a.reason) == (BatchCode.FULL, True)
        assert now.batches_by_reason == {BatchCode.FULL: 1}
        await scheduler.wait_idle()
        done = scheduler.statistics()
        assert done.batches_by_items == {Stage.GENERATE: {4: 3}}
        a = load_of(scheduler, "a")
        (learnt,) = a.learnt
        assert (learnt.stage, learnt.group) == (Stage.GENERATE, "g")
        assert learnt.seconds_by_items == {4: pytest.approx(10.0)}
        assert a.reason.startswith("nothing is queued; ")
        assert (a.reason_code, done.admission_code) == (TheftCode.NO_VICTIM, AdmissionCode.EXHAUSTED)
