"""Connects the scheduler to the store and the devices: one batch out, one transaction back."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from imgdiffd.daemon.disk import DiskGuard
from imgdiffd.errors import NoRoomError, WorkerDiedError
from imgdiffd.fleet.device import DeviceProcess
from imgdiffd.pipeline import Task, reason_of_failure
from imgdiffd.schedulers.work import Batch
from imgdiffd.store import Store

_log = logging.getLogger(__name__)


class StoreWork:
    """The scheduler's `Work`, backed by the store and the worker processes.

    A result is recorded only if its item has not moved since the batch was sent, so a late answer changes nothing.
    While the disk is full, results wait to be recorded until there is room.
    """

    def __init__(
        self,
        store: Store,
        devices: Mapping[str, DeviceProcess],
        disk: DiskGuard,
        on_settled: Callable[[Collection[int]], None] = lambda items: None,
        on_derived: Callable[[], None] = lambda: None,
        check_state: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_settled` is called with captions whose images may no longer be wanted, once that is on disk.

        `on_derived` is called when a result gave another pipeline new items, which no follow-up task announces.
        `check_state` is called before anything is recorded; it raises if the state folder is no longer there.
        """
        self._on_settled = on_settled
        self._on_derived = on_derived
        self._check_state = check_state
        self._store = store
        self._devices = devices
        self._disk = disk

    async def refill(self, room: int, held: Collection[int]) -> Sequence[Task]:
        """At most `room` READY items that are not `held`, the most downstream first."""
        return await self._store.ready_tasks(room, held)

    async def execute(self, device: str, batch: Batch) -> Sequence[Task]:
        """Run `batch` on `device`, record it, and return what its items need next.

        Raises OutOfMemoryError, StageError or WorkerDiedError; nothing is recorded then.
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
            self._disk.note_full(sum(task.open_bytes for task in batch.tasks))
            raise
        self._check_state()
        attempts = {task.item: task.attempt for task in batch.tasks}
        record = partial(self._store.record, batch.stage, device, profile, done.outputs, attempts, done.seconds)
        recorded = await self._disk.retry_while_full(record)
        if recorded.stale:
            _log.warning("%s on %s: %d results came too late and were dropped", batch.stage, device, recorded.stale)
        if recorded.settled:
            self._on_settled(recorded.settled)
        if recorded.derived:
            self._on_derived()
        return recorded.tasks

    async def record_crashes(self, tasks: Sequence[Task]) -> None:
        """Count a crash against each item, which was alone in its batch."""
        self._check_state()
        await self._disk.retry_while_full(partial(self._store.record_crashes, [task.item for task in tasks]))

    async def quarantine(self, task: Task, cause: str) -> None:
        """Mark an item FAILED with its `cause`."""
        self._check_state()
        _log.error("item %d is quarantined in %s: %s", task.item, task.stage, cause)
        await self._disk.retry_while_full(
            partial(self._store.quarantine, task.item, reason_of_failure(task.stage), cause)
        )
