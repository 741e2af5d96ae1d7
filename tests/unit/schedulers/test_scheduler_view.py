"""What the scheduler has learnt and decided can be read by a user."""

import json

from imgdiffd.errors import OutOfMemoryError, WorkError
from imgdiffd.pipeline import Stage
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.view import scheduler_view
from imgdiffd.schedulers.work import Batch
from imgdiffd.status import SchedulerView
from tests.fakes.work import FakeWork, last_stage, on_virtual_time, running, tasks


def no_room_for_four(device: str, batch: Batch) -> WorkError | None:
    return OutOfMemoryError("no room") if device == "a" and len(batch.tasks) > 2 else None


@on_virtual_time
async def test_status_tells_costs_caps_batch_sizes_and_reasons_of_every_device() -> None:
    work = FakeWork(tasks(range(16), Stage.GENERATE), failing=no_room_for_four, following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a", "b"):
        await scheduler.wait_idle()
        view = SchedulerView.model_validate_json(scheduler_view(scheduler.statistics()).model_dump_json())
    a, b = view.devices
    assert (a.learnt[0].stage, a.learnt[0].group, a.learnt[0].most_items) == (Stage.GENERATE, "g", 2)
    assert a.learnt[0].seconds_by_items[2] == 1.0
    assert (b.learnt[0].most_items, b.learnt[0].p99_s) == (None, 1.0)
    assert view.out_of_memory >= 1
    assert sum(size * count for size, count in view.batches_by_items[Stage.GENERATE].items()) >= 16
    assert a.last_failure == "generate x4: 4 did not fit: again in smaller batches"
    assert b.last_failure == ""
    assert a.reason
    assert b.reason
    assert json.loads(view.model_dump_json())["admission"]
