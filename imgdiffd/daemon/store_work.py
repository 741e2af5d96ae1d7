"""Joins the scheduler's decisions to the store and the devices: one batch out, one transaction back.

It owns the order "read inputs, run, record"; it decides nothing and does not know when a batch is due.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.errors import NoRoomError, WorkerDiedError
from imgdiffd.fleet.device import DeviceProcess
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import REMOVAL_STAGES, Task
from imgdiffd.schedulers.work import Batch
from imgdiffd.store import Store, TaskRow

_log = logging.getLogger(__name__)


def task_of(row: TaskRow, profile: Profile) -> Task:
    """The scheduler's view of a row. While it is open, an item's two images lie on the disk and in caches."""
    open_bytes = 2 * 3 * profile.generate.picture_px**2  # uncompressed, so never too few
    return Task(row.item, row.stage, row.attempt, row.group, row.priority, row.crashes, open_bytes)


class StoreWork:
    """The scheduler's `Work`, backed by the store and the worker processes.

    A result is recorded only for items that are still where the batch found them, so a late answer changes nothing.
    While the disk is full, what is to be recorded waits until there is room.
    """

    def __init__(
        self,
        store: Store,
        devices: Mapping[str, DeviceProcess],
        disk: DiskGuard,
        on_ended: Callable[[Collection[int]], None] = lambda items: None,
    ) -> None:
        """`on_ended` is told of items that ended, or whose removal did, once that is on disk."""
        self._on_ended = on_ended
        self._store = store
        self._devices = devices
        self._disk = disk

    async def refill(self, room: int, held: Collection[int]) -> Sequence[Task]:
        """READY items that nobody holds, the most downstream first."""
        rows = await self._store.ready_tasks(room, held)
        return [task_of(row, await self._store.profile_of(row.group)) for row in rows]

    async def execute(self, device: str, batch: Batch) -> Sequence[Task]:
        """Run `batch` on `device`, record it, and return what its items need next.

        Raises OutOfMemoryError, StageError or WorkerDiedError; then nothing was recorded.
        """
        process = self._devices.get(device)
        if process is None or not process.alive:
            gone = WorkerDiedError(f"device {device} is not running", device=device, stage=batch.stage)
            gone.begun = False  # no item is to blame
            raise gone
        inputs = await self._store.stage_inputs(batch.stage, [task.item for task in batch.tasks])
        if not inputs:
            return ()
        profile = await self._store.profile_of(batch.group)
        try:
            done = await process.run(batch.stage, profile, inputs, batch.deadline_s)
        except NoRoomError:
            self._disk.note_full()
            raise
        attempts = {task.item: task.attempt for task in batch.tasks}
        record = partial(self._store.record, batch.stage, device, profile, done.outputs, attempts, done.seconds)
        recorded = await self._disk.retry_while_full(record)
        if recorded.stale:
            _log.warning("%s on %s: %d results came too late and were dropped", batch.stage, device, recorded.stale)
        if ended := attempts if recorded.stale else recorded.finished:  # images of what came too late are nobody's
            self._on_ended([abs(item) for item in ended])
        return [task_of(row, profile) for row in recorded.tasks]

    async def record_crashes(self, tasks: Sequence[Task]) -> None:
        """Count a lone crash against each item."""
        await self._disk.retry_while_full(partial(self._store.record_crashes, [task.item for task in tasks]))

    async def quarantine(self, task: Task, cause: str) -> None:
        """Give an item up, with its cause."""
        what = "removal" if task.stage in REMOVAL_STAGES else "item"
        _log.error("%s %d set aside at %s: %s", what, abs(task.item), task.stage, cause)
        await self._disk.retry_while_full(partial(self._store.quarantine, task.item, f"broke_{task.stage}", cause))
