"""What becomes of tasks whose batch failed, decided and carried out."""

import itertools
from dataclasses import replace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.errors import NoRoomError, OutOfMemoryError, StageError, WorkerDiedError, WorkError
from imgdiffd.pipeline import Role, Stage
from imgdiffd.schedulers.reasons import RecoveryCode
from imgdiffd.schedulers.recovery import Failure, failure_of, recover
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.work import Batch
from tests.fakes.work import ALL_ROLES, Failing, FakeWork, last_stage, load_of, on_virtual_time, running, tasks

NO_CAPTIONER = ALL_ROLES - {Role.CAPTIONER}


def too_large_for(limit: int) -> Failing:
    def failing(device: str, batch: Batch) -> WorkError | None:
        return OutOfMemoryError("no room") if len(batch.tasks) > limit else None

    return failing


@on_virtual_time
async def test_out_of_memory_halves_the_batch_until_it_fits() -> None:
    work = FakeWork(tasks(range(64)), failing=too_large_for(20), following=last_stage)
    scheduler = Scheduler(work, in_flight=1)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
        assert [cost.most_items for cost in load_of(scheduler, "a").learnt] == [16]
    assert work.sizes(Stage.REWRITE) == [64, 32, 16, 16, 16, 16]
    assert set(work.ended.values()) == {"done"}


@on_virtual_time
async def test_batch_size_that_fitted_is_remembered_for_later_work() -> None:
    work = FakeWork(tasks(range(64)), failing=too_large_for(20), following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
        work.ran.clear()
        work.add(*tasks(range(100, 164)))
        await scheduler.wait_idle()
    assert work.sizes(Stage.REWRITE) == [16, 16, 16, 16]


@on_virtual_time
async def test_an_item_that_does_not_fit_alone_counts_as_a_crash() -> None:
    work = FakeWork(tasks(range(1)), failing=too_large_for(0), following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
        assert scheduler.statistics().recoveries == {RecoveryCode.CRASHED: 2, RecoveryCode.QUARANTINED: 1}
    assert work.sizes(Stage.REWRITE) == [1, 1, 1]
    assert work.causes == {0: "no room"}


@on_virtual_time
async def test_an_item_that_fails_alone_is_tried_on_another_device() -> None:
    def too_small(device: str, batch: Batch) -> WorkError | None:
        return OutOfMemoryError("no room") if device == "a" else None

    work = FakeWork(tasks(range(8), Stage.GENERATE), failing=too_small, following=last_stage)
    async with running(work, scheduler := Scheduler(work), "a", "b"):
        await scheduler.wait_idle()
    assert set(work.ended.values()) == {"done"}
    assert work.charged
    assert len(work.charged) == len(set(work.charged)), "no item is charged twice for the same device"


def broken_by(culprit: int, *, dies: bool) -> Failing:
    def failing(device: str, batch: Batch) -> WorkError | None:
        if culprit not in batch.items:
            return None
        return WorkerDiedError(f"{device} ended") if dies else StageError("division by zero")

    return failing


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("culprit", [0, 13, 63])
def test_a_culprit_of_64_is_found_in_6_halvings(culprit: int, dies: bool) -> None:
    @on_virtual_time
    async def play() -> None:
        failing = broken_by(culprit, dies=dies)
        work = FakeWork(tasks(range(64)), failing=failing, following=last_stage)
        scheduler = Scheduler(work)
        async with running(work, scheduler, "a"):
            await scheduler.wait_idle()
        with_culprit = [len(ran.batch.tasks) for ran in work.ran if culprit in ran.batch.items]
        assert with_culprit == [64, 32, 16, 8, 4, 2, 1, 1, 1]
        assert work.charged == [culprit] * 3
        assert {item for item, end in work.ended.items() if end == "quarantined"} == {culprit}
        assert len(work.ended) == 64
        assert ("ended" if dies else "division") in work.causes[culprit]

    play()


@on_virtual_time
async def test_part_of_a_failed_batch_runs_alone_on_its_device() -> None:
    failing = broken_by(2, dies=True)
    work = FakeWork(tasks(range(40), Stage.GENERATE), failing=failing, following=last_stage)
    scheduler = Scheduler(work, ahead_s=1000.0)
    async with running(work, scheduler, "a", "b"):
        await scheduler.wait_idle()
    assert {item for item, end in work.ended.items() if end == "quarantined"} == {2}
    assert all(task.crashes == 0 for ran in work.ran for task in ran.batch.tasks if task.item != 2)


@on_virtual_time
async def test_batch_that_waited_behind_a_killer_is_not_suspected() -> None:
    """The worker that dies takes a second batch with it, whether it says so or not."""
    for tells in (True, False):
        failing = broken_by(0, dies=True)
        apart = [*tasks(range(1), Stage.RENDER, group="x"), *tasks(range(1, 2), Stage.RENDER, group="y")]
        work = FakeWork(apart, failing=failing, following=last_stage, tells_begun=tells)
        scheduler = Scheduler(work, ahead_s=1000.0)
        async with running(work, scheduler, "a"):
            await scheduler.wait_idle()
        assert work.ended == {0: "quarantined", 1: "done"}
        assert all(task.crashes == 0 for ran in work.ran for task in ran.batch.tasks if task.item == 1)


@on_virtual_time
async def test_a_death_with_two_batches_is_charged_to_neither() -> None:
    apart = [*tasks(range(1), Stage.RENDER, group="x"), *tasks(range(1, 2), Stage.RENDER, group="y")]
    work = FakeWork(apart, following=last_stage, tells_begun=False)
    scheduler = Scheduler(work, ahead_s=1000.0)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)
        assert load_of(scheduler, "a").in_flight == 2
        work.kill("a")
        await scheduler.wait_idle()
    assert not work.charged
    assert len(work.ended) == 2


@on_virtual_time
async def test_queue_of_a_device_that_goes_down_goes_to_the_others() -> None:
    work = FakeWork(tasks(range(40), Stage.GENERATE), following=last_stage, restart_s=None)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a", "b"):
        await anyio.sleep(0.5)
        work.kill("a")
        await scheduler.wait_idle()
        assert not load_of(scheduler, "a").up
    assert set(work.ended.values()) == {"done"}
    assert {ran.device for ran in work.ran if ran.ended_s > 0.5} == {"b"}


@on_virtual_time
async def test_work_without_a_device_for_it_waits_until_there_is_one() -> None:
    work = FakeWork(tasks(range(4), Stage.DESCRIBE), following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler):
        work.up("a", NO_CAPTIONER)
        await anyio.sleep(60.0)
        assert scheduler.statistics().stranded == 4
        assert not work.ran
        work.up("b")
        await scheduler.wait_idle()
    assert {ran.device for ran in work.ran} == {"b"}


@on_virtual_time
async def test_device_gets_nothing_after_a_death_until_it_is_up_again() -> None:
    failing = broken_by(0, dies=True)
    work = FakeWork(tasks(range(9)), failing=failing, following=last_stage, restart_s=50.0)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    deaths = [ran.ended_s for ran in work.ran if 0 in ran.batch.items]
    begins = [ran.begun_s for ran in work.ran]
    assert not any(death < begun < death + 50.0 for death in deaths for begun in begins)


@on_virtual_time
async def test_an_earlier_workers_death_spares_its_successor() -> None:
    work = FakeWork(tasks(range(4), Stage.RENDER), following=last_stage, restart_s=None)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await anyio.sleep(0.5)
        work.kill("a")
        work.machines["a"].alive = True
        scheduler.device_up("a", ALL_ROLES)  # before the error of the batch has come back
        work.machines["a"].killed = anyio.Event()
        await scheduler.wait_idle()
        assert load_of(scheduler, "a").up
    assert len(work.ended) == 4


@on_virtual_time
async def test_batch_carries_its_deadline() -> None:
    work = FakeWork(tasks(range(4), Stage.COMPARE), following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a"):
        await scheduler.wait_idle()
    assert work.ran[0].batch.deadline_s == 120.0


@given(st.integers(1, 9), st.sampled_from(Failure), st.booleans(), st.booleans(), st.integers(0, 2))
def test_no_task_is_lost_or_doubled_by_a_decision(
    count: int, failure: Failure, alone: bool, suspect: bool, crashes: int
) -> None:
    failed = tuple(replace(task, crashes=crashes) for task in tasks(range(count)))
    decision = recover(failed, failure, alone=alone, suspect=suspect, max_crashes=3)
    given_up = (decision.given_up,) if decision.given_up else ()
    told = [*decision.again, *itertools.chain(*decision.apart), *given_up]
    assert sorted(task.item for task in told) == list(range(count))
    assert decision.reason.text
    assert (decision.reason.code is RecoveryCode.QUARANTINED) == (decision.given_up is not None)
    charged = [task for task in told if task.crashes != crashes]
    assert charged == ([decision.charged] if decision.charged else [])
    assert not charged or (count == 1 and failure is not Failure.NOT_BEGUN and (alone or failure is not Failure.DIED))
    assert all(len(part) < count or count == 1 or failure is Failure.NOT_BEGUN for part in decision.apart)


DECISIONS = {
    (4, Failure.NOT_BEGUN, True, False): RecoveryCode.NOT_ITS_DOING,
    (4, Failure.OUT_OF_MEMORY, True, False): RecoveryCode.SMALLER,
    (4, Failure.OUT_OF_MEMORY, True, True): RecoveryCode.HALVES,
    (4, Failure.DIED, False, False): RecoveryCode.HALVES,
    (1, Failure.DIED, False, False): RecoveryCode.ALONE,
    (1, Failure.BROKEN, False, False): RecoveryCode.CRASHED,
    (1, Failure.DIED, True, True): RecoveryCode.CRASHED,
}


@pytest.mark.parametrize(("case", "code"), DECISIONS.items(), ids=map(str, DECISIONS))
def test_each_kind_of_failure_has_its_recovery(case: tuple[int, Failure, bool, bool], code: RecoveryCode) -> None:
    count, failure, alone, suspect = case
    decision = recover(tuple(tasks(range(count))), failure, alone=alone, suspect=suspect, max_crashes=2)
    assert decision.reason.code is code


def test_errors_of_the_work_are_told_apart() -> None:
    queued = WorkerDiedError("ended")
    queued.begun = False
    errors = (OutOfMemoryError("full"), StageError("broken"), WorkerDiedError("ended"), queued, NoRoomError("disk"))
    assert tuple(map(failure_of, errors)) == (
        Failure.OUT_OF_MEMORY,
        Failure.BROKEN,
        Failure.DIED,
        Failure.NOT_BEGUN,
        Failure.NOT_BEGUN,
    )
