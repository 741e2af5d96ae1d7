"""Jobs: reading, duplicates, pausing, cancelling, retrying, ending."""

from pathlib import Path

import pytest

from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem, CaptionRecord, ItemState, JobState, chosen_states
from imgdiffd.pipeline import Stage
from imgdiffd.store import Store, orders
from tests.fakes.answers import PROFILE, captions
from tests.fakes.store_driver import advance_to, finish, progress_of, ready, record, states_of, submit

pytestmark = pytest.mark.anyio


async def test_a_job_is_not_worked_on_before_it_is_read_to_its_end(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await store.add_job("a", "/inbox/a", "hash", PROFILE)
        assert job.state is JobState.READING
        await store.add_captions(job.id, captions(2))
        assert await ready(store) == []
        assert (await store.finish_reading(job.id)).state is JobState.ACTIVE
        assert len(await ready(store)) == 2


async def test_a_job_that_brings_nothing_new_is_done_at_once(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 2, name="first")
        second = await submit(store, 2, name="second")
        assert (second.state, second.total, second.duplicates) == (JobState.DONE, 0, 2)


async def test_captions_are_taken_once_whichever_job_brings_them(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await store.add_job("a", "/inbox/a", "hash", PROFILE)
        twice = [CaptionRecord("a cat", "", 1), CaptionRecord("a cat", "", 2), CaptionRecord("a dog", "", 3)]
        assert await store.add_captions(job.id, twice) == (2, 1)
        assert await store.add_captions(job.id, [CaptionRecord("a dog", "", 4), CaptionRecord("a cow", "", 5)]) == (
            1,
            1,
        )
        other_profile = PROFILE.model_copy(update={"seed": 1})
        other = await store.add_job("a", "/inbox/a", "hash", other_profile)
        assert await store.add_captions(other.id, twice) == (2, 1)
        row = await store.finish_reading(job.id)
        assert (row.total, row.duplicates, await states_of(store, row.id)) == (3, 2, {ItemState.READY: 3})


async def test_same_content_and_profile_is_a_duplicate_job(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        first = await submit(store, 1)
        second = await store.add_job("copy", "/inbox/copy", first.sha256, PROFILE)
        assert (second.state, second.duplicate_of) == (JobState.DONE, first.id)
        third = await store.add_job("copy", "/inbox/copy2", first.sha256, PROFILE)
        assert third.duplicate_of == first.id
        await store.cancel(first.id)
        assert (await store.add_job("copy", "/inbox/copy3", first.sha256, PROFILE)).state is JobState.READING


async def test_captions_of_a_cancelled_job_may_be_brought_again(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        first = await submit(store, 3)
        await store.cancel(first.id)
        again = await submit(store, 3)
        assert (again.total, again.duplicates, again.duplicate_of) == (3, 0, None)


async def test_duplicates_of_a_cancelled_job_come_back_with_their_file(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "state.db") as store:
        owner = await submit(store, 3)
        sharing = await submit(store, 5, name="sharing")
        assert (sharing.total, sharing.duplicates) == (2, 3)
        await store.cancel(owner.id)
        again = await submit(store, 5, name="sharing")
        assert (again.duplicate_of, again.total, again.duplicates) == (None, 3, 2)
        assert len(await ready(store)) == 5
        copy = await store.add_job("copy", "/inbox/copy", again.sha256, PROFILE)
        assert (copy.duplicate_of, copy.state) == (again.id, JobState.DONE)


async def test_after_a_clock_set_back_duplicates_still_come_back(tmp_path: Path) -> None:
    now_s = [1_000_000.0]
    async with Store.open(tmp_path / "state.db", lambda: now_s[0]) as store:
        owner = await submit(store, 3)
        await submit(store, 5, name="sharing")
        now_s[0] -= 3600
        cancelled = await store.cancel(owner.id)
        assert cancelled.finished_at is not None
        assert cancelled.finished_at >= cancelled.created_at
        assert (await submit(store, 5, name="sharing")).total == 3


async def test_records_that_cannot_be_read_are_kept_with_their_line(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await store.add_job("a", "/inbox/a", "hash", PROFILE)
        await store.add_captions(job.id, captions(1), [CaptionProblem(7, "no_caption", "no key 'caption'")])
        await store.finish_reading(job.id)
        row = await store.job(job.id)
        assert row is not None
        assert row.problems == 1
        assert [(p.line, p.code, p.message) for p in await store.problems(job.id)] == [
            (7, "no_caption", "no key 'caption'")
        ]
        assert (await store.funnel(job.id)).problems == 1


async def test_a_file_that_fails_midway_frees_its_captions(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await store.add_job("a", "/inbox/a", "hash", PROFILE)
        await store.add_captions(job.id, captions(3))
        failed = await store.fail_job(job.id, "line 4: not UTF-8")
        assert (failed.state, failed.error) == (JobState.FAILED, "line 4: not UTF-8")
        assert await states_of(store, failed.id) == {ItemState.CANCELLED: 3}
        assert (await submit(store, 3, name="b")).total == 3


async def test_a_paused_job_offers_no_items_but_takes_results(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 2)
        tasks = await ready(store)
        assert (await store.pause(job.id)).state is JobState.PAUSED
        assert await ready(store) == []
        recorded = await record(store, tasks)
        assert (recorded.tasks, recorded.stale) == ((), 0)
        assert (await store.resume(job.id)).state is JobState.ACTIVE
        assert [task.stage for task in await ready(store)] == [Stage.GENERATE] * 2


async def test_a_job_that_ended_while_paused_is_done_when_resumed(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 1)
        tasks = await advance_to(store, Stage.RENDER)
        await store.pause(job.id)
        assert (await record(store, tasks)).done_jobs == ()
        assert (await store.resume(job.id)).state is JobState.DONE


async def test_a_cancelled_job_takes_no_results(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 2, name="a")
        other = await submit(store, captions(2, start=50), name="b")
        tasks = await ready(store)
        cancelled = await store.cancel(job.id)
        assert (cancelled.state, await states_of(store, cancelled.id)) == (JobState.CANCELLED, {ItemState.CANCELLED: 2})
        inputs = await store.stage_inputs(Stage.REWRITE, [task.item for task in tasks])
        assert len(inputs) == 2
        await finish(store)
        row = await store.job(other.id)
        assert row is not None
        assert (row.state, await states_of(store, row.id)) == (JobState.DONE, {ItemState.SAMPLED: 2})


async def test_an_interrupted_cancel_goes_on_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "CANCEL_CHUNK", 2)
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 5)
        tasks = await ready(store)
        with monkeypatch.context() as killed:
            killed.setattr(orders, "cancel_leftovers", lambda connection, now, job=None: 0)
            assert await states_of(store, (await store.cancel(job.id)).id) == {ItemState.READY: 5}
        assert await ready(store) == []
        assert await store.stage_inputs(Stage.REWRITE, [task.item for task in tasks]) == []
    async with Store.open(tmp_path / "s.db") as store:
        await store.drop_unread_jobs()
        row = await store.job(job.id)
        assert row is not None
        assert await states_of(store, row.id) == {ItemState.CANCELLED: 5}


async def test_failed_items_are_retried_by_reason_and_reopen_their_job(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 3)
        tasks = await advance_to(store, Stage.COMPARE)
        for task, reason in zip(tasks, ["worker_died", "worker_died", "stage_error"], strict=True):
            await store.record_crashes([task.item])
            assert await store.quarantine(task.item, reason, "signal 11")
        row = await store.job(job.id)
        assert row is not None
        assert (row.state, await states_of(store, row.id)) == (JobState.DONE, {ItemState.FAILED: 3})
        assert (await progress_of(store)).lost == {Stage.COMPARE: {"worker_died": 2, "stage_error": 1}}
        assert await store.retry(reason="worker_died") == 2
        row = await store.job(job.id)
        assert row is not None
        assert (row.state, row.finished_at) == (JobState.ACTIVE, None)
        assert [(t.item, t.stage, t.attempt, t.crashes) for t in await ready(store)] == [
            (task.item, Stage.COMPARE, 1, 0) for task in tasks[:2]
        ]
        with pytest.raises(InputError, match=r"what has failed, by reason: stage_error \(1\)"):
            await store.retry(job.id, "worker_died")
        assert await store.retry(job.id) == 1


async def test_failed_items_of_a_cancelled_job_stay_failed(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 2)
        await store.quarantine((await ready(store))[0].item, "worker_died", "")
        await store.cancel(job.id)
        assert await store.retry() == 0


async def test_forbidden_moves_are_refused_with_the_jobs_state(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 1)
        for call in (store.resume(job.id), store.finish_reading(job.id), store.fail_job(job.id, "late")):
            with pytest.raises(InputError, match=f"job {job.id}: cannot .* it is active") as caught:
                await call
            assert caught.value.code == "wrong_job_state"
        await store.cancel(job.id)
        for call in (store.pause(job.id), store.resume(job.id), store.cancel(job.id)):
            with pytest.raises(InputError, match="it is cancelled"):
                await call
        with pytest.raises(InputError, match="it is cancelled"):
            await store.add_captions(job.id, captions(1))
        for call in (store.pause(99), store.resume(99), store.cancel(99)):
            with pytest.raises(InputError, match="there is no job 99") as caught:
                await call
            assert caught.value.code == "unknown_job"


async def test_jobs_are_listed_newest_first(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", clock=lambda: 12.5) as store:
        first = await submit(store, 2, name="a", priority=3)
        second = await submit(store, captions(1, start=9), name="b")
        rows = await store.jobs()
        assert [row.id for row in rows] == [second.id, first.id]
        assert (rows[1].name, rows[1].profile, rows[1].priority) == ("a", "default", 3)
        assert (rows[1].created_at, rows[1].finished_at) == (12.5, None)
        assert await store.jobs(limit=1) == rows[:1]


async def test_open_jobs_are_listed_before_those_that_have_ended(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        for number in range(1, 8):
            await submit(store, captions(1, start=number), name=str(number))
        for job in (2, 3, 7):
            await store.cancel(job)
        await store.pause(4)
        everything = [row.id for row in await store.jobs()]
        assert everything == [6, 5, 4, 1, 7, 3, 2]
        assert [row.id for row in await store.jobs("open")] == [6, 5, 4, 1]
        assert [row.id for row in await store.jobs("ended", 2)] == [7, 3]
        assert [row.id for row in await store.jobs("paused")] == [4]
        assert (await store.page("all", 1, None)).counts == {
            JobState.ACTIVE: 3,
            JobState.PAUSED: 1,
            JobState.CANCELLED: 3,
        }


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7])
async def test_pages_of_jobs_leave_none_out_while_some_of_them_end(tmp_path: Path, limit: int) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        for number in range(1, 8):
            await submit(store, captions(1, start=number), name=str(number))
        for job in (2, 3, 7):
            await store.cancel(job)
        seen: list[int] = []
        after: int | None = None
        for ending in (6, 5, 1, *[None] * 9):
            page = await store.jobs("all", limit, after)
            seen += [row.id for row in page]
            if len(page) < limit:
                break
            after = page[-1].id if page[-1].state in chosen_states("open") else -page[-1].id
            if ending is not None:
                await store.cancel(ending)
        assert set(seen) == set(range(1, 8))
