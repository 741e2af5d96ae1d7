"""What the scheduler has learnt and decided can be read by a user."""

import json

from imgdiffd.errors import OutOfMemoryError, WorkError
from imgdiffd.pipeline import Stage
from imgdiffd.schedulers.reasons import AdmissionCode, BatchCode, RecoveryCode, TheftCode
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.work import Batch
from imgdiffd.status import SchedulerView
from tests.fakes.work import FakeWork, last_stage, on_virtual_time, running, tasks

SENT = {
    "devices", "admission", "admission_code", "held_back", "open_bytes", "queued", "running", "stranded",
    "batches_by_items", "batches_by_reason", "out_of_memory", "deaths", "broken", "recoveries", "quarantined",
}  # fmt: skip
SENT_OF_A_DEVICE = {
    "name", "up", "reason", "reason_code", "last_failure", "queued", "queued_s", "in_flight", "batches", "steals",
    "learnt",
}  # fmt: skip


def no_room_for_four(device: str, batch: Batch) -> WorkError | None:
    return OutOfMemoryError("no room") if device == "a" and len(batch.tasks) > 2 else None


@on_virtual_time
async def test_status_shows_every_devices_costs_caps_and_reasons() -> None:
    work = FakeWork(tasks(range(16), Stage.GENERATE), failing=no_room_for_four, following=last_stage)
    scheduler = Scheduler(work)
    async with running(work, scheduler, "a", "b"):
        await scheduler.wait_idle()
        view = SchedulerView.model_validate_json(scheduler.statistics().model_dump_json())
    a, b = view.devices
    assert (a.learnt[0].stage, a.learnt[0].group, a.learnt[0].most_items) == (Stage.GENERATE, "g", 2)
    assert a.learnt[0].seconds_by_items[2] == 1.0
    assert (b.learnt[0].most_items, b.learnt[0].p99_s) == (None, 1.0)
    assert view.out_of_memory == sum(view.recoveries.values()) >= 1
    assert RecoveryCode.SMALLER in view.recoveries
    sizes = view.batches_by_items[Stage.GENERATE]
    assert sum(size * count for size, count in sizes.items()) >= 16
    assert sum(view.batches_by_reason.values()) == sum(sizes.values()) == a.batches + b.batches
    assert view.batches_by_reason.keys() <= {*BatchCode, TheftCode.STOLEN}
    assert view.batches_by_reason.get(TheftCode.STOLEN, 0) == a.steals + b.steals
    assert a.last_failure == "generate x4: 4 did not fit: again in smaller batches"
    assert b.last_failure == ""
    assert a.reason
    assert a.reason_code == b.reason_code == TheftCode.NO_VICTIM
    assert view.admission
    assert view.admission_code == AdmissionCode.EXHAUSTED


@on_virtual_time
async def test_what_a_status_says_elsewhere_is_not_sent_twice() -> None:
    work = FakeWork(tasks(range(4), Stage.GENERATE))
    async with running(work, scheduler := Scheduler(work), "a"):
        await scheduler.wait_idle()
        sent = json.loads(scheduler.statistics().model_dump_json())
    assert sent.keys() == SENT
    assert sent["devices"][0].keys() == SENT_OF_A_DEVICE
