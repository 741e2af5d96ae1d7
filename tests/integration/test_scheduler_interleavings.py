"""What holds under every schedule of arrivals, completions, failures, deaths, pauses and cancels.

Each seed fixes one schedule, the order of ready callbacks included, on virtual time; one that fails says with which
command it replays. `make test-schedules` draws 10,000. The fake work complains of an item in two places and of a
result recorded twice. No failure hangs: turns at one moment, looks at the clock, virtual and real time are bounded.
"""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

import anyio
import pytest

from imgdiffd.errors import OutOfMemoryError, StageError, WorkerDiedError, WorkError
from imgdiffd.pipeline import STAGES, Role, Stage, Task, stage_after
from imgdiffd.schedulers.admission import background_bound
from imgdiffd.schedulers.batching import Patience
from imgdiffd.schedulers.cost_table import first_guess_s
from imgdiffd.schedulers.scheduler import Scheduler
from imgdiffd.schedulers.virtual_time import run_virtual
from imgdiffd.schedulers.work import Batch
from tests.fakes.work import ALL_ROLES, FakeWork, Ran, running

SCHEDULES = int(os.environ.get("SCHEDULES", "100"))
MOST_LOOKS = 100_000  # a loop that spins at one moment of virtual time would never end
PATIENCE_S = 20_000.0  # far above what any schedule needs; a lost wake-up or a starved item exceeds it
NEVER_S = 1e9  # a poll so late that only a wake-up can help
REAL_S = 120  # a schedule takes hundredths of a second; one that never gives the loop its turn would not end
FLOOD_S = 15_000.0  # work keeps coming until all before it ended; what has not ended by then starves
FIRST_OF_FLOOD = 1_000  # the flood's items have this number and higher ones
REPLAY = (
    "SCHEDULES={count} python -m pytest 'tests/integration/test_scheduler_interleavings.py::"
    "test_each_item_is_owned_once_none_is_lost_and_none_starves[seed{seed}]'"
)


class Schedule:
    """One drawn world: devices, items, what fails, and when."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        draw = self.random
        self.devices = [f"d{number}" for number in range(draw.randint(1, 4))]
        self.roles = {name: ALL_ROLES - {Role.CAPTIONER} if draw.random() < 0.3 else ALL_ROLES for name in self.devices}
        self.roles[self.devices[0]] = ALL_ROLES
        self.fits = {name: draw.choice([1, 2, 3, 64, 64]) for name in self.devices}
        count = draw.randint(1, 60)
        self.items = [
            Task(
                item,
                draw.choice(list(Stage)),
                0,
                draw.choice("xyz"),
                draw.choice([0, 0, 0, 1, -1]),
                open_bytes=draw.choice([0, 1, 5, 30]),
            )
            for item in range(count)
        ]
        some = draw.sample(range(count), min(count, draw.choice([0, 0, 1, 2])))
        self.culprits = {item: draw.choice(list(Stage)) for item in some}
        self.deadly = draw.random() < 0.5
        self.flaky = draw.choice([0.0, 0.0, 0.05])
        self.cancelled = set(draw.sample(range(count), draw.choice([0, 0, count // 4])))
        self.looks = 0  # at the clock: a loop that spins looks all the time
        self.polls = draw.random() < 0.5  # else every arrival is announced, and a wake-up that is lost is lost for good
        self.floods = draw.random() < 0.05  # work of the same priority or a higher one never ends
        self.gone: set[int] = set()
        self.kills = draw.choice([0, 0, 3])
        self.work = FakeWork(
            seconds=self.seconds,
            failing=self.failing,
            following=self.following,
            refill_s=draw.choice([0.0, 0.001, 2.0]),
            restart_s=draw.choice([0.0, 1.0, 30.0]),
            tells_begun=draw.random() < 0.5,
        )
        self.max_open = draw.choice([1, 3, 16, 256])
        self.scheduler = Scheduler(
            self.work,
            max_open=256 if self.floods else self.max_open,
            max_open_bytes=None if self.floods else draw.choice([None, None, 20, 200]),
            clock=self.clock,
            in_flight=draw.choice([1, 2, 2, 3]),
            ahead_s=draw.choice([0.0, 1.0, 100.0]),
            poll_s=5.0 if self.polls else NEVER_S,
            patience=Patience(max_passes=3)
            if self.floods
            else draw.choice([Patience(), Patience(max_passes=3), Patience(0.0, 0.0)]),
        )

    def clock(self) -> float:
        self.looks += 1
        assert self.looks < MOST_LOOKS, "the loop spins"
        return anyio.current_time()

    def seconds(self, device: str, batch: Batch) -> float:
        cost_s = max(first_guess_s("paper")[batch.stage], 0.05) * len(batch.tasks)
        return cost_s * self.random.choice([0.1, 0.5, 1.0, 3.0])

    def failing(self, device: str, batch: Batch) -> WorkError | None:
        if len(batch.tasks) > self.fits[device]:
            return OutOfMemoryError("no room")
        if any(self.culprits.get(task.item) is task.stage for task in batch.tasks):
            return WorkerDiedError("killed") if self.deadly else StageError("broken")
        if len(batch.tasks) > 1 and self.random.random() < self.flaky:
            return WorkerDiedError("a cosmic ray")
        return None

    def following(self, task: Task) -> Task | None:
        """Most items go on, some are rejected, some are tried again with another attempt."""
        fate = self.random.random()
        if fate < 0.1 and task.attempt < 2:
            return replace(task, attempt=task.attempt + 1, crashes=0)
        stage = stage_after(task.stage)
        return replace(task, stage=stage, attempt=0, crashes=0) if stage and fate < 0.8 else None

    async def arrive(self) -> None:
        """Items come in a few lots; not every lot is announced."""
        waiting = list(self.items)
        while waiting:
            lot = self.random.randint(1, len(waiting))
            self.work.add(*(task for task in waiting[:lot] if task.item not in self.gone))
            del waiting[:lot]
            if not self.polls or self.random.random() < 0.8:
                self.scheduler.wake()
            await anyio.sleep(self.random.choice([0.0, 0.1, 10.0]))

    async def flood(self) -> None:
        """Keep work coming until all that was there before ended, but for the background, whose turn is after it."""
        if not self.floods:
            return
        draw = self.random
        priority, groups, most = draw.choice([0, 2]), draw.choice(["x", "xyz"]), draw.choice([20, 190])
        others = {task.item for task in self.items if not task.background} - self.cancelled
        item = FIRST_OF_FLOOD
        while waiting := others - self.work.ended.keys():
            assert anyio.current_time() < FLOOD_S, f"items {sorted(waiting)} starve"
            for _ in range(most - sum(one >= FIRST_OF_FLOOD for one in self.work.ready)):
                self.work.add(Task(item, Stage.REWRITE, 0, draw.choice(groups), priority))
                item += 1
            self.scheduler.wake()
            await anyio.sleep(draw.choice([0.5, 2.0, 10.0]))

    async def cancel(self) -> None:
        """A job is cancelled while its items are anywhere; those that have not come yet never do."""
        await anyio.sleep(self.random.uniform(0.0, 40.0))
        self.gone = self.cancelled
        self.work.cancel(self.gone)

    async def disturb(self) -> None:
        """Pauses and killed devices, for a while."""
        for _ in range(self.kills):
            await anyio.sleep(self.random.uniform(0.0, 20.0))
            if self.random.random() < 0.5:
                self.scheduler.pause()
                await anyio.sleep(self.random.uniform(0.0, 20.0))
                self.scheduler.resume()
            else:
                self.work.kill(self.random.choice(self.devices))

    async def play(self) -> None:
        """Run to the end; raises TimeoutError where the end does not come."""
        self.work.scheduler = self.scheduler
        async with running(self.work, self.scheduler):
            for name in self.devices:
                self.work.up(name, self.roles[name])
            with anyio.fail_after(PATIENCE_S):
                async with anyio.create_task_group() as group:
                    for part in (self.arrive, self.flood, self.cancel, self.disturb):
                        group.start_soon(part)
                while self.work.ready:  # asking the scheduler to wait for its end would wake it
                    await anyio.sleep(1.0)
                await self.scheduler.wait_idle()
            self.after = self.scheduler.statistics()
            await self.scheduler.drain()


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"still running after {REAL_S} s")


@contextmanager
def replayable(seed: int) -> Iterator[None]:
    """Whatever fails inside fails within REAL_S, naming the seed and the command that replays it."""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(REAL_S)
    try:
        yield
    except Exception as error:
        command = REPLAY.format(count=seed + 1, seed=seed)
        raise AssertionError(f"seed {seed} fails: {_reason(error)}\nreplay it with: {command}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _reason(error: BaseException) -> str:
    """The first error within a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError) and not str(error):
        return f"the end did not come within {PATIENCE_S:,.0f} virtual seconds: an item or a wake-up was lost"
    return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("seed", range(SCHEDULES), ids=lambda seed: f"seed{seed}")
def test_each_item_is_owned_once_none_is_lost_and_none_starves(seed: int) -> None:
    with replayable(seed):
        schedule = Schedule(seed)
        run_virtual(schedule.play, seed=seed)
        check(schedule)


def check(schedule: Schedule) -> None:
    """The laws that hold at the end of every schedule."""
    work, after = schedule.work, schedule.after
    assert not work.ready
    assert set(work.ended) >= {task.item for task in schedule.items} - schedule.cancelled
    assert (after.open, after.queued, after.running, after.stranded) == (0, 0, 0, 0)
    if not schedule.floods:
        assert work.most_held <= schedule.max_open + background_bound(schedule.max_open)
    quarantined = {item for item, end in work.ended.items() if end == "quarantined"}
    assert quarantined == {item for item in work.charged if work.charged.count(item) >= 3 and item in quarantined}
    if not schedule.kills:
        assert set(work.charged) <= set(schedule.culprits), "an innocent was charged"
    assert schedule.looks < 8 * (len(work.ran) + work.refills + 20), "the loop spins"
    for ran in work.ran:
        assert STAGES[ran.batch.stage].roles <= schedule.roles[ran.device]


def test_schedules_reach_every_kind_of_event() -> None:
    """Without this, a change of the draw could make the laws above hold of nothing."""
    seen = {"steals": 0, "out_of_memory": 0, "deaths": 0, "broken": 0, "quarantined": 0, "cancelled": 0, "sizes": 0}
    for seed in range(100):
        schedule = Schedule(seed)
        run_virtual(schedule.play, seed=seed)
        after = schedule.after
        seen["steals"] += after.steals
        seen["out_of_memory"] += after.out_of_memory
        seen["deaths"] += after.deaths
        seen["broken"] += after.broken
        seen["quarantined"] += after.quarantined
        seen["cancelled"] += sum(end == "cancelled" for end in schedule.work.ended.values())
        seen["sizes"] += sum(size > 1 for sizes in after.batches_by_items.values() for size in sizes)
    assert all(seen.values()), seen


def test_seed_replays_its_schedule_exactly() -> None:
    def played(seed: int) -> list[Ran]:
        schedule = Schedule(seed)
        run_virtual(schedule.play, seed=seed)
        return schedule.work.ran

    assert played(7) == played(7)
    assert played(7) != played(8)
