"""Random lives of a store on a real file, against a model of what must be true of it."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from imgdiffd.daemon.views import funnel_view
from imgdiffd.errors import InputError
from imgdiffd.job import TERMINAL_ITEM_STATES, TERMINAL_JOB_STATES, ItemState, JobState
from imgdiffd.method.messages import StageOutput
from imgdiffd.pipeline import Stage, Task
from imgdiffd.status import Funnel, FunnelStep
from imgdiffd.store import Overview, Reader, Store
from tests.fakes.answers import PROFILE, answers, captions
from tests.fakes.store_driver import MANY, finish

T = TypeVar("T")
MOST_CAPTIONS = 12
EMPTY = FunnelStep(name="nothing", count=0)


class StoreMachine(RuleBasedStateMachine):
    """Jobs come, items move, people interfere, the process is killed: nothing is lost, nothing is doubled.

    `batches` are results that a worker still owes: by the time that they are recorded, anything may have happened.
    """

    batches: Bundle[tuple[Stage, list[Task], list[StageOutput]]] = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="imgdiffd-store-"))
        self.lives = 0
        self.runner = asyncio.Runner()
        self.accepted: dict[int, int] = {}
        self.ended: dict[int, str] = {}

    @property
    def path(self) -> Path:
        return self.folder / f"state-{self.lives}.db"

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @initialize()
    def open(self) -> None:
        async def enter() -> None:
            self.stack = AsyncExitStack()
            self.store = await self.stack.enter_async_context(Store.open(self.path, removal=True))
            await self.store.drop_unread_jobs()

        self.run(enter())

    @rule()
    def kill(self) -> None:
        """What a killed process leaves is what lies on disk at that moment."""
        before = self.path
        self.lives += 1
        for suffix in ("", "-wal"):
            source = before.with_name(before.name + suffix)
            if source.exists():
                shutil.copyfile(source, self.path.with_name(self.path.name + suffix))
        self.run(self.stack.aclose())
        self.open()

    @rule(start=st.integers(1, MOST_CAPTIONS), count=st.integers(1, 4), whole=st.booleans())
    def submit(self, start: int, count: int, whole: bool) -> None:
        async def bring() -> None:
            job = await self.store.add_job("j", "s", f"{start}-{count}-{whole}", PROFILE)
            if job.duplicate_of is None:
                accepted, duplicates = await self.store.add_captions(job.id, captions(count, start))
                assert accepted + duplicates == count
                if whole:
                    self.accepted[job.id] = accepted
                    await self.store.finish_reading(job.id)

        self.run(bring())

    @rule(target=batches, room=st.integers(1, 5), passes=st.integers(0, 3), hold=st.booleans())
    def take(self, room: int, passes: int, hold: bool) -> Any:
        async def work() -> tuple[Stage, list[Task], list[StageOutput]] | None:
            tasks = await self.store.ready_tasks(room, ())
            if not tasks:
                return None
            stage = tasks[0].stage
            batch = [task for task in tasks if task.stage is stage]
            inputs = await self.store.stage_inputs(stage, [task.item for task in batch])
            assert [given.item for given in inputs] == [task.item for task in batch]
            return stage, batch, answers(inputs, passes > 0)

        batch = self.run(work())
        if batch is None:
            return multiple()
        return multiple(batch, batch) if hold else batch  # held twice: a late worker answers again

    @rule(batch=consumes(batches))
    def record(self, batch: tuple[Stage, list[Task], list[StageOutput]]) -> None:
        stage, tasks, outputs = batch
        attempts = {task.item: task.attempt for task in tasks}
        recorded = self.run(self.store.record(stage, "cpu:0", PROFILE, outputs, attempts, 0.1))
        moved = {task.item for task in recorded.tasks} | set(recorded.finished)
        assert len(moved) + recorded.stale <= len(outputs)

    @rule(job=st.integers(1, 6), action=st.sampled_from(["pause", "resume", "cancel", "retry"]))
    def interfere(self, job: int, action: str) -> None:
        with suppress(InputError):
            self.run(getattr(self.store, action)(job))
            if action == "retry":
                self.ended = {item: state for item, state in self.ended.items() if state != ItemState.FAILED}

    @rule()
    def look(self) -> None:
        """What is summed up from changes is what a look at everything finds."""
        kept = self.run(self.store.overview(4, 2, 3))
        with Reader.open(self.path) as reader:
            found = reader.overview(4, 2)
        first = self._open_in_order(found)[:3]
        waiting = [each for each in found.queue.waiting if each.job in first]
        assert kept == replace(found, queue=replace(found.queue, waiting=waiting))

    @staticmethod
    def _open_in_order(found: Overview) -> list[int]:
        return [row.id for row in found.rows if row.state not in TERMINAL_JOB_STATES]

    @rule(aside=st.booleans())
    def crash(self, aside: bool) -> None:
        async def blame() -> None:
            for task in await self.store.ready_tasks(1, ()):
                await self.store.record_crashes([task.item])
                if aside:
                    assert await self.store.quarantine(task.item, "worker_died", "signal 11")

        self.run(blame())

    @invariant()
    def everything_adds_up(self) -> None:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
            counted = "SELECT job_id, pipeline, stage, state, reason, count(*) FROM items GROUP BY 1, 2, 3, 4, 5"
            assert set(db.execute("SELECT * FROM counts WHERE n <> 0")) == set(db.execute(counted))
            living = db.execute(
                "SELECT profile_id, caption, origin IS NULL FROM items WHERE state <> 'cancelled'"
            ).fetchall()
            assert len(living) == len(set(living))
            self._jobs_agree_with_their_items(db)
            self._terminal_items_stay(db)
            self._samples_belong_to_sampled_items(db)

    @invariant()
    def every_caption_is_in_one_row_of_the_funnel(self) -> None:
        async def funnels() -> list[Funnel]:
            asked: list[int | None] = [None, *(row.id for row in await self.store.jobs())]
            return [funnel_view(await self.store.funnel(job)) for job in asked]

        for funnel in self.run(funnels()):
            for unit in ("captions", "pairs"):
                first, *narrowings = [step for step in funnel.steps if step.counts == unit] or [EMPTY]
                left = first.count
                for step in narrowings:
                    assert step.base == left
                    left -= sum(step.lost.values()) + step.waiting
                    assert step.count == left
                ends = {step.name: step.count for step in funnel.ends if step.counts == unit}
                assert sum(ends.values()) == first.count
                assert ends.get(f"{unit} with a sample", 0) == left
                assert ends.get(f"{unit} waiting", 0) == sum(step.waiting for step in narrowings)

    def _jobs_agree_with_their_items(self, db: sqlite3.Connection) -> None:
        for job, state, total in db.execute("SELECT id, state, total FROM jobs").fetchall():
            rows = db.execute("SELECT origin IS NULL, state FROM items WHERE job_id = ?", (job,)).fetchall()
            items = [item for is_caption, item in rows if is_caption]
            assert len(items) == total
            if job in self.accepted:
                assert total == self.accepted[job]
            has_ready = ItemState.READY in items
            assert not (state in {JobState.DONE, JobState.CANCELLED} and has_ready)
            assert not (state == JobState.CANCELLED and any(item == ItemState.READY for _, item in rows))
            assert not (state == JobState.ACTIVE and not has_ready)
        missing = self.accepted.keys() - {row[0] for row in db.execute("SELECT id FROM jobs")}
        assert not missing

    def _terminal_items_stay(self, db: sqlite3.Connection) -> None:
        now = dict(db.execute("SELECT id, state FROM items").fetchall())
        for item, state in self.ended.items():
            assert now[item] == state
        self.ended = {item: state for item, state in now.items() if state in TERMINAL_ITEM_STATES}

    def _samples_belong_to_sampled_items(self, db: sqlite3.Connection) -> None:
        sampled = {row[0] for row in db.execute("SELECT id FROM items WHERE state = 'sampled' AND origin IS NULL")}
        assert {row[0] for row in db.execute("SELECT item_id FROM samples")} == sampled
        removed = {row[0] for row in db.execute("SELECT id FROM items WHERE state = 'sampled' AND origin IS NOT NULL")}
        assert {row[0] for row in db.execute("SELECT item_id FROM erasures WHERE with_image <> ''")} == removed

    def teardown(self) -> None:
        try:
            if hasattr(self, "store"):
                self.run(self._everything_comes_to_an_end())
                self.run(self.stack.aclose())
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    async def _everything_comes_to_an_end(self) -> None:
        for job in await self.store.jobs():
            if job.state is JobState.PAUSED:
                await self.store.resume(job.id)
            elif job.state is JobState.READING:
                await self.store.cancel(job.id)
        await finish(self.store)
        assert await self.store.ready_tasks(MANY, ()) == []
        assert {job.state for job in await self.store.jobs()} <= {JobState.DONE, JobState.CANCELLED}


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
