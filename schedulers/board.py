"""Every open task and where it is: the scheduler's state, and the moves that apply its decisions."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from imgdiffd.pipeline import DEPTH, STAGES, Role, Stage, Task, stage_after
from imgdiffd.schedulers.admission import OpenWork
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.devices import Device, InFlightBatch
from imgdiffd.schedulers.limits import BatchLimits
from imgdiffd.schedulers.queues import DeviceQueue, Entry, Suspects
from imgdiffd.schedulers.reasons import DeviceCode, Reason
from imgdiffd.schedulers.recovery import Failure, Recovery

_SHELF_BATCHES = 2  # queued per device: one to take next, one for while the device that feeds it is busy itself


class Board:
    """The open tasks, each of them in exactly one place: on a device's deque, in flight, or stranded.

    No method waits; those that need the time are given it.
    """

    def __init__(self, costs: Costs, limits: BatchLimits) -> None:
        self.costs = costs
        self.limits = limits
        self.devices: dict[str, Device] = {}
        self.stranded = DeviceQueue()
        self.open_bytes = 0
        self.background = 0  # open tasks of that class
        self._open: dict[int, Task] = {}
        self._forgotten: set[int] = set()  # open items to be dropped when their batch comes back
        self._upstream: dict[str, list[int]] = {}  # group -> open tasks by depth
        self._fed: dict[Stage, list[Device]] = {}  # stage -> what runs the next one, where some cannot run it

    @property
    def held(self) -> Collection[int]:
        """The items of all open tasks."""
        return self._open.keys()

    @property
    def queued(self) -> int:
        """Tasks on all deques."""
        return sum(len(device.queue) for device in self.devices.values())

    @property
    def open_work(self) -> OpenWork:
        """How much is open, for the decision to let more in."""
        return OpenWork(len(self._open) - self.background, self.background, self.queued, self.open_bytes)

    def fillable(self, stage: Stage, group: str) -> bool:
        """Whether tasks of the group are open further upstream, queued or running, on any device."""
        return any(self._upstream[group][: DEPTH[stage]])

    def feeds(self, stage: Stage) -> bool:
        """Whether some device lacks the models of `stage` and will soon lack tasks of the one that follows it."""
        takers = self._fed.get(stage)
        if not takers:
            return False
        following = stage_after(stage)
        assert following is not None
        shelf = len(takers) * STAGES[following].batch_limit * _SHELF_BATCHES
        return sum(device.queue.count(following) for device in self.devices.values()) < shelf

    def add(self, tasks: Iterable[Task], now_s: float) -> None:
        """Open new tasks; those whose item is open already are left out."""
        fresh: dict[int, Task] = {}
        for task in tasks:
            if task.item not in self._open:
                fresh.setdefault(task.item, task)
        for task in fresh.values():
            self._enter(task)
        self._place([Entry(task, now_s) for task in fresh.values()], None)

    def _enter(self, task: Task) -> None:
        self._open[task.item] = task
        self.open_bytes += task.open_bytes
        self.background += task.background
        self._upstream.setdefault(task.group, [0] * len(DEPTH))[DEPTH[task.stage]] += 1

    def _leave(self, item: int) -> None:
        task = self._open.pop(item)
        self.open_bytes -= task.open_bytes
        self.background -= task.background
        counts = self._upstream[task.group]
        counts[DEPTH[task.stage]] -= 1
        if not any(counts):
            del self._upstream[task.group]
        self._forgotten.discard(item)

    def forget(self, items: Collection[int]) -> None:
        """Drop the queued tasks of these items; what runs is dropped when its batch comes back."""
        wanted = set(items) & self._open.keys()
        for queue in (self.stranded, *(device.queue for device in self.devices.values())):
            for task in queue.drop(lambda task: task.item in wanted):
                self._leave(task.item)
                wanted.discard(task.item)
        self._forgotten |= wanted

    def finished(self, sent: InFlightBatch, followups: Sequence[Task], now_s: float) -> None:
        """A batch is done: its items leave, or go on with their follow-up tasks, on the same device where it can.

        Raises RuntimeError unless every follow-up is the only one of an item of the batch.
        """
        seconds = self.devices[sent.device].take_back(sent, now_s)
        stage, size = sent.batch.stage, len(sent.entries)
        if seconds is not None:
            self.costs.record(sent.device, sent.batch.key, size, seconds)
        self.limits.worked(sent.device, sent.batch.key, size)
        strangers = {task.item for task in followups} - set(sent.batch.items)
        if strangers or len({task.item for task in followups}) < len(followups):
            raise RuntimeError(f"follow-ups of {stage} on {sent.device} are not one each of its items: {followups}")
        forgotten = self._forgotten & set(sent.batch.items)
        for item in sent.batch.items:
            self._leave(item)
        kept = [task for task in followups if task.item not in forgotten]
        for task in kept:
            self._enter(task)
        self._place([Entry(task, now_s) for task in kept], sent.device)

    def failed(self, sent: InFlightBatch, failure: Failure, now_s: float) -> None:
        """A batch came back undone; its tasks stay open until `requeue`."""
        seconds = self.devices[sent.device].take_back(sent, now_s)
        if failure is Failure.OUT_OF_MEMORY:
            self.limits.out_of_memory(sent.device, sent.batch.key, len(sent.entries))
        elif failure is Failure.DIED and seconds is not None and seconds >= sent.batch.deadline_s:
            self.costs.overdue(sent.device, sent.batch.key)

    def requeue(self, sent: InFlightBatch, recovery: Recovery) -> None:
        """Put the tasks of a failed batch where the decision says; they keep their age.

        What crashed alone goes to another device, if there is one: the device may be to blame, or too small.
        """
        self.devices[sent.device].last_failure = f"{sent.batch.stage} x{len(sent.entries)}: {recovery.reason}"
        since_s = {entry.task.item: entry.since_s for entry in sent.entries}
        gone = {item for item in since_s if item in self._forgotten}
        if recovery.given_up:
            gone.add(recovery.given_up.item)
        for item in gone:
            self._leave(item)

        def entries(tasks: Iterable[Task]) -> tuple[Entry, ...]:
            return tuple(Entry(task, since_s[task.item]) for task in tasks if task.item not in gone)

        self._place(entries(recovery.again), sent.device, front=True)
        for part in recovery.apart:
            if kept := entries(part):
                avoid = sent.device if recovery.charged else None
                self._place_suspects(Suspects(kept), None if avoid else sent.device, avoid)

    def device_up(self, name: str, roles: frozenset[Role]) -> None:
        """The device takes work for these models from now on; what waited for such a device is placed."""
        device = self.devices.setdefault(name, Device(name))
        if device.up:
            self.device_down(name)
        device.up, device.roles, device.reason = True, roles, Reason(DeviceCode.READY, "ready")
        device.generation += 1
        self._find_fed()
        self._place_all(self.stranded)

    def device_down(self, name: str, generation: int | None = None) -> None:
        """The device takes nothing; its queued tasks go to others. A `generation` before the present one is ignored."""
        device = self.devices.get(name)
        if device is None or not device.up or generation not in (None, device.generation):
            return
        device.up, device.reason, device.until_s = False, Reason(DeviceCode.DOWN, "down"), None
        self._find_fed()
        self._place_all(device.queue)

    def _find_fed(self) -> None:
        self._fed = {}
        for stage in DEPTH:
            following = stage_after(stage)
            takers = [one for one in self.devices.values() if following and one.up and one.holds(following)]
            if not all(device.holds(stage) for device in takers):
                self._fed[stage] = takers

    def _home(
        self, stage: Stage, prefer: str | None, backlog_s: Mapping[str, float], avoid: str | None = None
    ) -> Device | None:
        def rank(device: Device) -> tuple[bool, bool, float, str]:
            return device.name != prefer, device.name == avoid, backlog_s[device.name], device.name

        able = [device for device in self.devices.values() if device.up and device.holds(stage)]
        return min(able, key=rank, default=None)

    def _backlog(self) -> dict[str, float]:
        return {device.name: device.queued_seconds(self.costs, self.limits) for device in self.devices.values()}

    def _place(self, entries: Sequence[Entry], prefer: str | None, *, front: bool = False) -> None:
        if not entries:
            return
        preferred = self.devices.get(prefer) if prefer else None
        if preferred and preferred.up and all(preferred.holds(entry.task.stage) for entry in entries):
            (preferred.queue.push_front if front else preferred.queue.push)(entries)
            return
        backlog_s = self._backlog()
        targets: dict[str | None, list[Entry]] = {}
        for entry in entries:
            stage = entry.task.stage
            home = self._home(stage, prefer, backlog_s)
            targets.setdefault(home.name if home else None, []).append(entry)
            if home:
                limit = self.limits.limit(home.name, entry.task.key)
                backlog_s[home.name] += self.costs.seconds(home.name, entry.task.key, limit) / limit
        for name, placed in targets.items():
            queue = self.devices[name].queue if name else self.stranded
            (queue.push_front if front else queue.push)(placed)

    def _place_suspects(self, part: Suspects, prefer: str | None, avoid: str | None = None) -> None:
        home = self._home(part.key[0], prefer, self._backlog(), avoid)
        (home.queue if home else self.stranded).suspects.append(part)

    def _place_all(self, queue: DeviceQueue) -> None:
        entries, suspects = queue.clear()
        self._place(entries, None)
        for part in suspects:
            self._place_suspects(part, None)
