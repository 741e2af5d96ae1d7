"""The loop that applies the scheduler's decisions: it lets tasks in, sends batches, and takes in what becomes of them.

It owns when objects happen; what happens is decided by the pure modules beside it. It does not know torch, SQL or
processes, and takes the time from the clock that it is given.
"""

import logging
from collections.abc import Callable, Collection

import anyio
from anyio.abc import TaskGroup

from imgdiffd.errors import OutOfMemoryError, StageError, WorkerDiedError
from imgdiffd.pipeline import Role
from imgdiffd.schedulers.admission import Admission, Demand, admit_in_order, background_bound, let_in
from imgdiffd.schedulers.batching import Patience
from imgdiffd.schedulers.board import Board
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.devices import InFlightBatch
from imgdiffd.schedulers.dispatch import Dispatcher
from imgdiffd.schedulers.learnt import take_over, to_text
from imgdiffd.schedulers.limits import BatchLimits
from imgdiffd.schedulers.recovery import Failure, failure_of, recover
from imgdiffd.schedulers.statistics import Statistics, statistics_of
from imgdiffd.schedulers.work import Work

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
        self._max_open = max_open
        self._max_open_bytes = max_open_bytes
        self._poll_s = poll_s
        self._max_crashes = max_crashes
        self._clock = clock
        self._on_turn = on_turn
        self._board = Board(costs or Costs(), BatchLimits())
        self._dispatcher = Dispatcher(self._board, patience or Patience(), in_flight=in_flight, ahead_s=ahead_s)
        self._failures = dict.fromkeys(Failure, 0)
        self._quarantined = 0
        self._pauses: dict[str, None] = {}  # an ordered set of reasons
        self._draining = False
        self._running = False
        self._asking = False
        self._asked_s = 0.0
        self._exhausted = False
        self._background_exhausted = False
        self._full = False
        self._woken = False
        self._gone_while_asking: set[int] = set()
        self._admission = Admission(0, "not started")
        self._changed = anyio.Event()
        self._idle = anyio.Event()
        self._ended = anyio.Event()

    def device_up(self, name: str, roles: frozenset[Role]) -> None:
        """The device is ready and holds the models of `roles`. Called again, it has been restarted."""
        self._board.device_up(name, roles)
        self._poke()

    def device_down(self, name: str) -> None:
        """The device takes nothing more; its queue goes to others, what it runs comes back through its errors."""
        self._board.device_down(name)
        self._poke()

    def wake(self) -> None:
        """New tasks may be ready: ask for them soon."""
        self._woken = True
        self._exhausted = self._background_exhausted = self._full = False
        if self._idle.is_set():
            self._idle = anyio.Event()
        self._poke()

    def pause(self, reason: str = PAUSED) -> None:
        """Send nothing and let nothing in until every reason given has been resumed; what runs goes on."""
        self._pauses[reason] = None
        self._poke()

    def resume(self, reason: str = PAUSED) -> None:
        """Take back a pause; unknown reasons are ignored."""
        self._pauses.pop(reason, None)
        self._poke()

    def forget(self, items: Collection[int]) -> None:
        """Drop the tasks of these items, for instance of a cancelled job.

        A batch that runs goes on: its result is for `Work` to record or refuse, but no follow-up is taken from it.
        """
        self._board.forget(items)
        self._full = False
        if self._asking:
            self._gone_while_asking.update(items)
        self._poke()

    async def drain(self) -> None:
        """Send nothing more and return when nothing runs; `run` returns too. Cancelled, it goes on draining."""
        self._draining = True
        self._poke()
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

    def statistics(self) -> Statistics:
        """What is where now, what was done so far, and why."""
        return statistics_of(
            self._board,
            self._dispatcher.batch_sizes,
            now_s=self._clock(),
            failures=self._failures,
            quarantine=self._quarantined,
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
                    timeout_s = max(until_s - self._clock(), _TICK_S)
                    with anyio.move_on_after(timeout_s):
                        await self._changed.wait()
        finally:
            self._running = False
            self._ended.set()
            self._idle.set()

    def _poke(self) -> None:
        self._changed.set()

    def _held_back(self) -> tuple[str, ...]:
        return (*(("draining",) if self._draining else ()), *self._pauses)

    def _act(self, group: TaskGroup) -> float:
        """Do all that is to be done now; returns when to look again without an event."""
        now_s = self._clock()
        if now_s >= self._asked_s + self._poll_s:
            self._exhausted = self._background_exhausted = False
        held_back = self._held_back()
        board = self._board
        self._admission = self._admit(", ".join(held_back))
        if self._admission.room:
            self._start_asking(group, self._admission.room, now_s)
        until_s = now_s + self._poll_s
        if not held_back:
            flights, sooner_s = self._dispatcher.dispatch(now_s)
            for flight in flights:
                group.start_soon(self._fly, flight)
            until_s = min(until_s, sooner_s) if sooner_s is not None else until_s
        if not board.held and self._exhausted and self._background_exhausted and not self._asking:
            self._idle.set()
        return until_s

    def _admit(self, held_back: str) -> Admission:
        board = self._board
        usual = Demand(
            open=len(board.held) - board.background,
            queued=board.queued,
            max_open=self._max_open,
            exhausted=self._exhausted,
            asking=self._asking,
            held_back=held_back,
            open_bytes=board.open_bytes,
            max_bytes=self._max_open_bytes,
            full=self._full,
        )
        return admit_in_order(usual, background_open=board.background, background_exhausted=self._background_exhausted)

    def _start_asking(self, group: TaskGroup, room: int, now_s: float) -> None:
        self._asking, self._woken, self._asked_s = True, False, now_s
        self._gone_while_asking.clear()
        group.start_soon(self._ask, room)

    async def _ask(self, room: int) -> None:
        try:
            board = self._board
            tasks = await self._work.refill(room, frozenset(board.held))
            entrance = let_in(
                [task for task in tasks if task.item not in self._gone_while_asking],
                background_room=background_bound(self._max_open) - board.background,
                open_bytes=board.open_bytes,
                max_bytes=self._max_open_bytes,
            )
            board.add(entrance.tasks, self._clock())
            usual = sum(not task.background for task in tasks)
            self._full = entrance.cut and not entrance.tasks
            all_seen = not entrance.cut and not self._woken
            self._exhausted = usual < room and all_seen
            self._background_exhausted = len(tasks) < room and not entrance.crowded and all_seen
        finally:
            self._asking = False
            self._poke()

    async def _fly(self, flight: InFlightBatch) -> None:
        try:
            try:
                followups = await self._work.execute(flight.device, flight.batch)
            except (OutOfMemoryError, StageError, WorkerDiedError) as error:
                await self._recover(flight, error)
            else:
                self._board.finished(flight, followups, self._clock())
        finally:
            self._full = False
            self._poke()

    async def _recover(self, flight: InFlightBatch, error: OutOfMemoryError | StageError | WorkerDiedError) -> None:
        failure = failure_of(error)
        self._failures[failure] += 1
        self._board.failed(flight, failure, self._clock())
        if isinstance(error, WorkerDiedError):
            self._board.device_down(flight.device, flight.generation)
        self._poke()
        recovery = recover(
            flight.batch.tasks, failure, alone=flight.alone, suspect=flight.suspect, max_crashes=self._max_crashes
        )
        if recovery.charged:
            await self._work.record_crashes([recovery.charged])
        if recovery.given_up:
            self._quarantined += 1
            await self._work.quarantine(recovery.given_up, str(error))
        self._board.requeue(flight, recovery)
        _log.info("%s on %s: %s (%s)", flight.batch.stage, flight.device, recovery.reason, error)
