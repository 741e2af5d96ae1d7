"""Object removal in the database: which pairs it takes, its own fence and end, and what databases without it answer."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.errors import InputError
from imgdiffd.images.sweep import folders, superfluous
from imgdiffd.job import ItemState, JobState
from imgdiffd.method.removal_messages import EraseInput, InspectInput
from imgdiffd.pipeline import PIPELINES, Pipeline, Stage, Task
from imgdiffd.settings import KeepImages
from imgdiffd.store import Progress, Reader, RemovalStory, Store, orders
from imgdiffd.store import store as store_module
from tests.fakes.answers import PROFILE, answers, captions
from tests.fakes.store_driver import advance_to, finish, progress_of, ready, record, submit
from tests.integration.test_store_migration import old_database

pytestmark = pytest.mark.anyio

KEEPS: tuple[KeepImages, ...] = ("all", "samples")


async def story_of(store: Store, item: int) -> RemovalStory:
    story = (await store.item_story(item)).removal
    assert story is not None
    return story


async def removal_of(store: Store, job: int | None = None) -> Progress:
    return await progress_of(store, job, Pipeline.REMOVAL)


def origins(path: Path, tasks: list[Task]) -> list[int]:
    """The captions that the tasks' items are derived from."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT origin FROM items WHERE id = ?"
        return [connection.execute(query, (task.item,)).fetchone()[0] for task in tasks]


async def captions_done(store: Store) -> list[Task]:
    """Let every caption pass to its end; what is ready then."""
    while tasks := [task for task in await ready(store) if task.stage not in PIPELINES[Pipeline.REMOVAL].stages]:
        await record(store, [task for task in tasks if task.stage is tasks[0].stage])
    return await ready(store)


async def test_only_pairs_past_the_similarity_gate_wait_for_removal(
    tmp_path: Path,
) -> None:
    for name, asked in (("with", True), ("without", False)):
        async with Store.open(tmp_path / name, removal=asked) as store:
            job = await submit(store, 3)
            tasks = await advance_to(store, Stage.COMPARE)
            await record(store, tasks[:1], passes=False)
            await record(store, tasks[1:])
            removal = [task for task in await ready(store) if task.stage in PIPELINES[Pipeline.REMOVAL].stages]
            wanted = [task.item for task in tasks[1:]] if asked else []
            assert origins(tmp_path / name, removal) == wanted
            assert all(task.item > 3 for task in removal)
            assert (await removal_of(store, job.id)).total == (2 if asked else 0)


async def test_removals_come_behind_every_caption(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", removal=True) as store:
        await submit(store, 2)
        assert [task.stage for task in await captions_done(store)] == [Stage.ERASE] * 2
        await submit(store, captions(1, start=50), name="background", priority=-100)
        found = await ready(store)
        assert [task.stage for task in found] == [Stage.REWRITE, Stage.ERASE, Stage.ERASE]
        assert found[1].priority < found[0].priority == -100
        await record(store, found[1:2])
        stages = [task.stage for task in await ready(store)]
        assert stages == [Stage.REWRITE, Stage.INSPECT, Stage.ERASE]
        held = [found[2].item]
        assert [task.stage for task in await store.ready_tasks(9, held)] == [Stage.REWRITE, Stage.INSPECT]
        assert len(await store.ready_tasks(1, ())) == 1


async def test_a_job_is_done_with_its_captions_while_removals_go_on(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Store.open(path, removal=True) as store:
        job = await submit(store, 2)
        first, second = await captions_done(store)
        assert (await store.jobs())[0].state is JobState.DONE
        [given] = await store.stage_inputs(Stage.ERASE, [first.item])
        assert given == EraseInput(first.item, "1-1-1.png", "1-1-2.png", "a cat on mat number 1", 1, ("cat",), ("dog",))
        recorded = await record(store, [first])
        assert [(task.item, task.stage) for task in recorded.tasks] == [(first.item, Stage.INSPECT)]
        rejected = await record(store, [second], passes=False)
        assert (rejected.finished, rejected.settled) == ((second.item,), (2,))
        [given] = await store.stage_inputs(Stage.INSPECT, [first.item])
        assert isinstance(given, InspectInput)
        assert [(each.image, each.index, each.erased) for each in given.erasures] == [
            (1, 0, "1-1-1-e0.png"),
            (2, 0, "1-1-2-e0.png"),
        ]
        recorded = await record(store, list(recorded.tasks))
        assert (recorded.tasks, recorded.finished, recorded.stale) == ((), (first.item,), 0)
        assert await ready(store) == []
        progress = await removal_of(store, job.id)
        assert (progress.total, progress.samples) == (2, 2)
        assert progress.stages == {Stage.INSPECT: {ItemState.SAMPLED: 1}, Stage.ERASE: {ItemState.REJECTED: 1}}
        assert progress.lost == {Stage.ERASE: {"nothing_to_erase": 1}}
        assert (await store.funnel(job.id)).progress[Pipeline.REMOVAL] == progress
        assert (await store.funnel()).verdicts[Stage.INSPECT] == {"": 2}
        story = await story_of(store, 1)
        assert [(row.letter, row.reason, row.with_image) for row in story.erasures] == [
            ({"left": "A", "right": "B"}[row.holder], "", f"1-1-{row.erasure.image}-with.png") for row in story.erasures
        ]
        assert Counter(box.reason for box in story.found) == {"crops_too_similar": 2, "": 2}
    with Reader.open(path) as reader:
        samples = [row.sample for row in reader.removal_samples([job.id])]
        assert [(each.erasure.image, each.original, each.erased, each.caption) for each in samples] == [
            (1, "1-1-1-with.png", "1-1-1-without.png", "object of image 1"),
            (2, "1-1-2-with.png", "1-1-2-without.png", "object of image 2"),
        ]
        assert list(reader.removal_samples([job.id + 1])) == []


async def test_an_object_still_there_is_no_sample_and_keeps_its_scores(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", removal=True) as store:
        await submit(store, 1)
        recorded = await record(store, await captions_done(store))
        await record(store, list(recorded.tasks), passes=False)
        story = await story_of(store, 1)
        assert (story.state, story.stage) == (ItemState.REJECTED, Stage.INSPECT)
        assert {row.reason for row in story.erasures} == {"still_there"}
        assert all(row.scores and not row.with_image for row in story.erasures)
    with Reader.open(tmp_path / "s.db") as reader:
        assert list(reader.removal_samples()) == []


async def test_a_result_that_comes_twice_or_late_changes_nothing(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", removal=True) as store:
        job = await submit(store, 2)
        one, other = await captions_done(store)
        inputs = await store.stage_inputs(Stage.ERASE, [one.item, other.item])

        async def give(tasks: list[Task], attempt: int = 1) -> int:
            outputs = [each for each in answers(inputs) if each.item in {task.item for task in tasks}]
            attempts = {task.item: attempt for task in tasks}
            return (await store.record(Stage.ERASE, "cpu:0", PROFILE, outputs, attempts, 0.5)).stale

        assert await give([one], attempt=2) == 1
        assert await give([one]) == 0
        assert await give([one]) == 1
        assert await store.quarantine(other.item, "broke_erase", "boom")
        assert await give([other]) == 1
        assert len((await story_of(store, 1)).erasures) == 2
        assert (await story_of(store, 2)).erasures == ()
        assert (await store.cancel(job.id)).state is JobState.DONE
        assert await store.stage_inputs(Stage.INSPECT, [one.item]) == []


async def test_removals_have_their_own_crashes_quarantine_and_retry(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", removal=True) as store:
        job = await submit(store, 1)
        [task] = await captions_done(store)
        await store.record_crashes([task.item])
        await store.record_crashes([1, task.item])
        assert [each.crashes for each in await ready(store)] == [2]
        assert await store.quarantine(task.item, "broke_erase", "boom")
        assert not await store.quarantine(task.item, "broke_erase", "again")
        story = await story_of(store, 1)
        assert (story.state, story.reason, story.detail, story.crashes) == (ItemState.FAILED, "broke_erase", "boom", 2)
        assert (await store.item_story(1)).state is ItemState.SAMPLED
        assert (await removal_of(store, job.id)).lost == {Stage.ERASE: {"broke_erase": 1}}
        assert [await store.retry(job.id, "broke_inspect"), await store.retry(job.id, "broke_erase")] == [0, 1]
        assert await store.retry() == 0
        assert [(each.item, each.crashes) for each in await ready(store)] == [(task.item, 0)]
        assert (await store.jobs())[0].state is JobState.DONE
        await finish(store)
        assert (await removal_of(store, job.id)).samples == 2


async def test_a_paused_job_offers_no_removals_but_takes_results(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", removal=True) as store:
        job = await submit(store, 2)
        await record(store, (await advance_to(store, Stage.COMPARE))[:1])
        task = (await ready(store))[-1]
        assert task.stage is Stage.ERASE
        inputs = await store.stage_inputs(Stage.ERASE, [task.item])
        await store.pause(job.id)
        assert await ready(store) == []
        outputs = answers(inputs)
        recorded = await store.record(Stage.ERASE, "cpu:0", PROFILE, outputs, {task.item: task.attempt}, 0.5)
        assert (recorded.stale, recorded.tasks) == (0, ())
        await store.resume(job.id)
        assert Stage.INSPECT in {each.stage for each in await ready(store)}


async def test_cancelling_a_done_job_ends_its_removals_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "CANCEL_CHUNK", 2)
    async with Store.open(tmp_path / "s.db", removal=True) as store:
        job = await submit(store, 5)
        await record(store, await advance_to(store, Stage.COMPARE))
        assert (await store.cancel(job.id)).state is JobState.CANCELLED
        assert await ready(store) == []
        assert (await removal_of(store, job.id)).in_state(ItemState.CANCELLED) == 5
        again = await submit(store, 5, name="again")
        assert len(await captions_done(store)) == 5
        assert (await store.cancel(again.id)).state is JobState.DONE
        assert await ready(store) == []
        assert (await removal_of(store, again.id)).in_state(ItemState.CANCELLED) == 5
        with pytest.raises(InputError, match="cannot be cancelled"):
            await store.cancel(again.id)


async def test_removals_wait_for_a_daemon_that_runs_with_removal(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.db"
    async with Store.open(path, removal=True) as store:
        await submit(store, 2)
        await captions_done(store)
    async with Store.open(path) as store:
        assert await ready(store) == []
        assert (await removal_of(store)).in_state(ItemState.READY) == 2
    async with Store.open(path, removal=True) as store:
        await finish(store)
        assert (await removal_of(store)).samples == 4


async def test_pairs_made_without_removal_are_backfilled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BACKFILL_CHUNK", 2)
    path = tmp_path / "s.db"
    async with Store.open(path, removal=True) as store:
        await submit(store, 3, name="gone")
        await record(store, await advance_to(store, Stage.COMPARE))
        await store.cancel(1)
        await submit(store, captions(6, start=10))
        await store.backfill_pairs()
    async with Store.open(path) as store:
        tasks = await advance_to(store, Stage.COMPARE)
        await record(store, tasks[:1], passes=False)
        await record(store, tasks[1:4])
        await record(store, [task for task in await ready(store) if task.stage is Stage.LOCATE][:1], passes=False)
    for _ in range(2):
        async with Store.open(path, removal=True) as store:
            await store.backfill_pairs()
            waiting = [task for task in await ready(store) if task.stage is Stage.ERASE]
            assert origins(path, waiting) == [task.item for task in tasks[1:4]]
    async with Store.open(path, removal=True) as store:
        await finish(store)
        assert (await removal_of(store, 2)).in_state(ItemState.SAMPLED) == 5


async def test_the_sweep_keeps_the_images_that_removals_need(tmp_path: Path) -> None:
    folder = tmp_path / "pictures" / "000000"
    folder.mkdir(parents=True)
    async with Store.open(tmp_path / "s.db", removal=True) as store:
        await submit(store, 2)
        first, _ = await captions_done(store)
        await record(store, list((await record(store, [first])).tasks))
        with closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
            for column in ("erased", "with_image", "without_image"):  # made-up answers have no folder
                connection.execute(f"UPDATE erasures SET {column} = '000000/' || {column}")
        kept = [f"1-1-{image}-{end}.png" for image in (1, 2) for end in ("e0",)] + ["2-1-1-e0.png", "2-1-2-e7.png"]
        for name in (*kept, "1-1-1-e9.png", "1-1-1-with.png"):
            (folder / name).touch()
        [(found, items)] = folders(tmp_path / "pictures")
        known = await store.images(items)
        for keep in KEEPS:
            doomed = superfluous(found, known, keep, asked_ns=2**63, started_ns=0)
            assert [path.name for path in doomed] == ["1-1-1-e9.png"]


async def test_pairs_without_removal_count_as_backfill_where_it_is_on(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Store.open(path) as store:
        job = await submit(store, 4)
        tasks = await advance_to(store, Stage.COMPARE)
        await record(store, tasks[:1], passes=False)
        await record(store, tasks[1:])
        assert not any(each.backfillable for each in (await store.images(range(9))).values())
    async with Store.open(path, removal=True) as store:
        backfillable = {item for item, each in (await store.images(range(9))).items() if each.backfillable}
        assert backfillable == {task.item for task in tasks[1:]}
        await store.backfill_pairs()
        assert not any(each.backfillable for each in (await store.images(range(9))).values())
        assert await store.items_of(job.id) == range(1, 5)
        assert await store.items_of(99) == range(0)


async def test_pairs_whose_images_were_not_kept_are_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Store.open(path) as store:
        await submit(store, 3)
        await record(store, await advance_to(store, Stage.COMPARE))
    async with Store.open(path, removal=True) as store:
        await store.backfill_pairs(lambda names: {"2-1-2.png"} & set(names))
        waiting = [task for task in await ready(store) if task.stage is Stage.ERASE]
        assert origins(path, waiting) == [1, 3]


@pytest.mark.parametrize("version", [1, 2])
async def test_a_database_without_removal_is_backfilled_once_opened(tmp_path: Path, version: int) -> None:
    path = old_database(tmp_path / "state.db", version)
    with Reader.open(path) as reader:
        assert list(reader.removal_samples()) == []
        assert reader.item_story(1).removal is None
        assert reader.funnel().progress[Pipeline.REMOVAL].total == 0
    async with Store.open(path, removal=True) as store:
        await finish(store)
        assert (await removal_of(store, 1)).in_state(ItemState.SAMPLED) == 3


async def test_samples_are_numbered_as_they_are_recorded_and_never_anew(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "state.db", removal=True) as store:
        first = await submit(store, 3, name="first")
        second = await submit(store, captions(2, start=40), name="second")
        tasks = (await captions_done(store))[::-1]
        for task in tasks:
            erased = await record(store, [task])
            await record(store, erased.tasks)
        rows = await store.removal_samples()
        numbers = [row.id for row in rows]
        assert numbers == sorted(set(numbers))
        assert list(dict.fromkeys(row.sample.erasure.item for row in rows)) == origins(tmp_path / "state.db", tasks)
        assert await store.newest_removal_sample() == numbers[-1]
        assert {row.job for row in rows} == {first.id, second.id}
        assert await store.removal_samples(second.id) == [row for row in rows if row.job == second.id]
        assert await store.removal_samples(after=numbers[2], limit=2) == rows[3:5]
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("DELETE FROM removal_samples")
    async with Store.open(tmp_path / "state.db", removal=True) as store:
        assert await store.newest_removal_sample() == numbers[-1]
