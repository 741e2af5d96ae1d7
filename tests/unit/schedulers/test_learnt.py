"""What the scheduler learnt outlives it: seconds, and the batch sizes that fit."""

import pytest

from imgdiffd.errors import OutOfMemoryError, WorkerDiedError, WorkError
from imgdiffd.pipeline import Stage
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.learnt import take_over, to_text
from imgdiffd.schedulers.limits import BatchLimits
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.work import Batch
from tests.fakes.work import FakeWork, last_stage, on_virtual_time, running, tasks

GENERATE = (Stage.GENERATE, "7")


def test_everything_learnt_survives_as_text() -> None:
    costs, limits = Costs(), BatchLimits()
    costs.record("cuda:0", GENERATE, 4, 31.0)
    costs.record("cuda:1", (Stage.COMPARE, "7"), 32, 0.25)
    limits.out_of_memory("cuda:1", GENERATE, 4)
    text = to_text(costs, limits)
    costs, limits = Costs(), BatchLimits()
    take_over(text, costs, limits)
    assert costs.seconds("cuda:0", GENERATE, 4) == 31.0
    assert limits.caps("cuda:1") == {GENERATE: 2}
    assert to_text(costs, limits) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"seconds": [["a", "sing", "7", {"4": 1.0}]], "caps": []}',
        '{"seconds": [["a", "generate", "7", {"4": -1.0}]], "caps": []}',
        '{"seconds": [], "caps": [["a", "generate", "7", 0, 256]]}',
        '{"seconds": [], "caps": [["a", "generate", "7", 2]]}',
        '{"seconds": [], "caps": [["a", "generate", "7", 1e999, 1]]}',
        "[" * 9999,
    ],
)
def test_what_no_scheduler_wrote_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not what a scheduler learnt"):
        take_over(text, Costs(), BatchLimits())


@on_virtual_time
async def test_a_new_scheduler_does_not_repeat_out_of_memory() -> None:
    def two_fit(device: str, batch: Batch) -> WorkError | None:
        return OutOfMemoryError("no room") if len(batch.tasks) > 2 else None

    learnt = ""
    for out_of_memory in (1, 0):
        work = FakeWork(tasks(range(16), Stage.GENERATE), failing=two_fit, following=last_stage)
        scheduler = Scheduler(work)
        if learnt:
            scheduler.take_over(learnt)
        async with running(work, scheduler, "a"):
            await scheduler.wait_idle()
            assert scheduler.statistics().out_of_memory == out_of_memory
            learnt = scheduler.learnt()


@on_virtual_time
async def test_a_device_far_slower_than_guessed_gets_its_time() -> None:
    def killed_by_its_deadline(device: str, batch: Batch) -> WorkError | None:
        return WorkerDiedError("killed") if 1400.0 * len(batch.tasks) > batch.deadline_s else None

    work = FakeWork(
        tasks(range(4), Stage.GENERATE),
        seconds=lambda _, batch: min(1400.0 * len(batch.tasks), batch.deadline_s),
        failing=killed_by_its_deadline,
        following=last_stage,
    )
    async with running(work, scheduler := Scheduler(work), "a"):
        await scheduler.wait_idle()
    assert set(work.ended.values()) == {"done"}
