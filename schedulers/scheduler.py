"""The loop that applies the scheduler's decisions: it lets tasks in, sends batches and takes in what became of them."""

import logging
from collections import Counter
from collections.abc import Callable, Collection
from enum import StrEnum

import anyio
from anyio.abc import TaskGroup

from imgdiffd.errors import OutOfMemoryError, StageError, WorkerDiedError
from imgdiffd.pipeline import Role
from imgdiffd.schedulers.admission import Admission, Refills
from imgdiffd.schedulers.batching import Patience
from imgdiffd.schedulers.board import Board
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.devices import InFlightBatch
from imgdiffd.schedulers.dispatch import Dispatcher
from imgdiffd.schedulers.learnt import take_over, to_text
from imgdiffd.schedulers.limits import BatchLimits
from imgdiffd.schedulers.reasons import AdmissionCode, Reason
from imgdiffd.schedulers.recovery import Failure, failure_of, recover
from imgdiffd.schedulers.statistics import statistics_of
from imgdiffd.schedulers.work import Work
from imgdiffd.status import SchedulerView

_log = logging.getLogger(__name__)

_TICK_S = 0.001  # the shortest timed wait: rounding of the clock must not make the loop spin
PAUSED = "paused"


class Scheduler:
    """Feeds every device with batches of `work` until cancelled or drained.

    `max_open` bounds the tasks taken from `work` and not yet done, `max_open_bytes` the sum of their `open_bytes`;
    background tasks have an eighth of `max_open` to themselves. Up to `in_flight` batches are on a device at once;
    the next one is sent when the running one needs less than `ahead_s` more. `poll_s` is how often `work` is asked for
    tasks that nobody announced, and how often `on_turn` is called at least: a sign of life. An item that crashes
    `max_crashes` times alone is quarantined. Everything but `run`, `drain` and `wait_idle` returns at once and may be
    called at any time from the event loop.
    """

    def __init__(
        self,
        work: Work,
        *,
        max_open: int = 256,
        max_open_bytes: int | None = None,
        in_flight: int = 2,
        ahead_s: float = 1.0,
        poll_s: float = 5.0,
        max_crashes: int = 3,
        patience: Patience | None = None,
        costs: Costs | None = None,
        clock: Callable[[], float] = anyio.current_time,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        if max_open < 1 or in_flight < 1 or max_crashes < 1 or poll_s <= 0:
            raise ValueError("max_open, in_flight and max_crashes are at least 1, poll_s is above 0")
        self._work = work
        self._poll_s = poll_s
        self._max_crashes = max_crashes
        self._clock = clock
        self._on_turn = on_turn
        self._board = Board(costs or Costs(), BatchLimits())
        self._dispatcher = Dispatcher(self._board, patience or Patience(), in_flight=in_flight, ahead_s=ahead_s)
        self._refills = Refills(max_open=max_open, max_bytes=max_open_bytes, poll_s=poll_s)
        self._admission = Admission(0, Reason(AdmissionCode.NOT_STARTED, "not started"))
        self._failures = dict.fromkeys(Failure, 0)
        self._recoveries: Counter[StrEnum] = Counter()
        self._pauses: dict[str, None] = {}  # an ordered set of reasons
        self._draining = False
        self._running = False
        self._changed = anyio.Event()
        self._idle = anyio.Event()
        self._ended = anyio.Event()

    def device_up(self, name: str, roles: frozenset[Role]) -> None:
        """The device is ready and holds the models of `roles`. Called again, it has been restarted."""
        self._board.device_up(name, roles)
        self._changed.set()

    def device_down(self, name: str) -> None:
        """The device takes nothing more; its queue goes to others, what it runs comes back through its errors."""
        self._board.device_down(name)
        self._changed.set()

    def wake(self) -> None:
        """New tasks may be ready: ask for them soon."""
        self._refills.wake()
        if self._idle.is_set():
            self._idle = anyio.Event()
        self._changed.set()

    def wake_background(self) -> None:
        """New background tasks may be ready, and no others: ask for them as soon as nothing else waits."""
        self._refills.wake_background()
        self._changed.set()

    def pause(self, reason: str = PAUSED) -> None:
        """Send nothing and let nothing in until every reason given has been resumed; what runs goes on."""
        self._pauses[reason] = None
        self._changed.set()

    def resume(self, reason: str = PAUSED) -> None:
        """Take back a pause; unknown reasons are ignored."""
        self._pauses.pop(reason, None)
        self._changed.set()

    @property
    def held(self) -> frozenset[int]:
        """The items whose tasks are queued, running or waiting for a device."""
        return frozenset(self._board.held)

    def forget(self, items: Collection[int]) -> None:
        """Drop the tasks of these items, for instance of a cancelled job; items that are not open are ignored.

        A batch that runs goes on: its result is for `Work` to record or refuse, but no follow-up is taken from it.
        """
        self._board.forget(items)
        self._refills.forget(items)
        self._changed.set()

    async def drain(self) -> None:
        """Send nothing more and return when nothing runs; `run` returns too. Cancelled, it goes on draining."""
        self._draining = True
        self._changed.set()
        if self._running:
            await self._ended.wait()

    async def wait_idle(self) -> None:
        """Return when no task is open and a refill begun after this call found none, or when `run` has ended.

        Does not return while a pause or a missing device keeps tasks open.
        """
        self.wake()
        idle = self._idle
        if not self._ended.is_set():
            await idle.wait()

    def statistics(self) -> SchedulerView:
        """What is where now, what was done so far, and why."""
        return statistics_of(
            self._board,
            self._dispatcher,
            now_s=self._clock(),
            failures=self._failures,
            recoveries=self._recoveries,
            held_back=self._held_back(),
            admission=self._admission.reason,
        )

    def learnt(self) -> str:
        """What was learnt of the devices, for `take_over` of a later scheduler."""
        return to_text(self._board.costs, self._board.limits)

    def take_over(self, learnt: str) -> None:
        """Begin with what an earlier one learnt. Raises ValueError for what `learnt` did not return."""
        take_over(learnt, self._board.costs, self._board.limits)

    async def run(self) -> None:
        """Schedule until cancelled or drained. Runs once; an unexpected error of `Work` ends it."""
        if self._running or self._ended.is_set():
            raise RuntimeError("a scheduler runs once")
        self._running = True
        try:
            async with anyio.create_task_group() as group:  # it is left when everything that runs has ended
                while not self._draining:
                    self._changed = anyio.Event()
                    until_s = self._act(group)
                    self._on_turn()
                    with anyio.move_on_after(max(until_s - self._clock(), _TICK_S)):
                        await self._changed.wait()
        finally:
            self._running = False
            self._ended.set()
            self._idle.set()

    def _act(self, group: TaskGroup) -> float:
        """Do all that is to be done now; returns when to look again without an event."""
        now_s, held_back = self._clock(), self._held_back()
        self._admission = self._refills.decide(self._board.open_work, now_s=now_s, held_back=", ".join(held_back))
        if self._admission.room:
            self._refills.asked(self._admission.room, now_s)
            group.start_soon(self._refill, self._admission.room)
        until_s = now_s + self._poll_s
        if not held_back:
            batches, sooner_s = self._dispatcher.dispatch(now_s)
            for sent in batches:
                group.start_soon(self._execute, sent)
            until_s = min(until_s, sooner_s) if sooner_s is not None else until_s
        if not self._board.held and self._refills.is_dry(now_s):
            self._idle.set()
        return until_s

    def _held_back(self) -> tuple[str, ...]:
        return (*(("draining",) if self._draining else ()), *self._pauses)

    async def _refill(self, room: int) -> None:
        tasks = await self._work.refill(room, self.held)
        self._board.add(self._refills.answered(tasks, self._board.open_work), self._clock())
        self._changed.set()

    async def _execute(self, sent: InFlightBatch) -> None:
        try:
            followups = await self._work.execute(sent.device, sent.batch)
        except (OutOfMemoryError, StageError, WorkerDiedError) as error:
            await self._recover(sent, error)
        else:
            self._board.finished(sent, followups, self._clock())
        self._refills.room_made()
        self._changed.set()

    async def _recover(self, sent: InFlightBatch, error: OutOfMemoryError | StageError | WorkerDiedError) -> None:
        failure = failure_of(error)
        self._failures[failure] += 1
        self._board.failed(sent, failure, self._clock())
        if isinstance(error, WorkerDiedError):
            self._board.device_down(sent.device, sent.generation)
        self._changed.set()
        recovery = recover(
            sent.batch.tasks, failure, alone=sent.alone, suspect=sent.suspect, max_crashes=self._max_crashes
        )
        self._recoveries[recovery.reason.code] += 1
        if recovery.charged:
            await self._work.record_crashes([recovery.charged])
        if recovery.given_up:
            await self._work.quarantine(recovery.given_up, str(error))
        self._board.requeue(sent, recovery)
        _log.info("%s on %s: %s (%s)", sent.batch.stage, sent.device, recovery.reason, error)
