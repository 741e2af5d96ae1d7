"""Tasks going out and results coming in: order, fences, what is kept."""

import dataclasses
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.images.retention import named, unfinished
from imgdiffd.job import ItemState, JobState
from imgdiffd.method.filters import left_image
from imgdiffd.method.messages import (
    CompareOutput,
    ContrastInput,
    DescribeInput,
    GenerateOutput,
    LocateInput,
    RenderInput,
)
from imgdiffd.method.profile_sections import Abort
from imgdiffd.pipeline import CAPTION_STAGES, OPTIONAL_STAGES, Stage, seed_of
from imgdiffd.store import Reader, Store
from imgdiffd.store.items import READY_ITEMS, READY_JOBS
from tests.fakes.answers import BOXES, PROFILE, answer, answers, captions
from tests.fakes.store_driver import advance_to, finish, ready, record, states_of, submit

pytestmark = pytest.mark.anyio


async def test_tasks_come_by_stage_then_priority_then_age(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 3, name="old")
        tasks = await ready(store)
        await record(store, tasks[2:])
        await submit(store, captions(2, start=50), name="urgent", priority=5)
        found = await ready(store)
        assert [(task.stage, task.priority) for task in found] == [
            (Stage.GENERATE, 0),
            (Stage.REWRITE, 5),
            (Stage.REWRITE, 5),
            (Stage.REWRITE, 0),
            (Stage.REWRITE, 0),
        ]
        assert [task.item for task in found[1:]] == [4, 5, 1, 2]


async def test_held_items_are_passed_over_and_room_is_never_exceeded(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 10)
        every = [task.item for task in await ready(store)]
        assert [task.item for task in await store.ready_tasks(3, every[:5])] == every[5:8]
        assert await store.ready_tasks(0, ()) == []
        assert await store.ready_tasks(5, every) == []


async def test_tasks_are_found_by_index_alone(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 3)
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        plans = [
            " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values))
            for query, values in ((READY_ITEMS, ("rewrite", 1)), (READY_JOBS, ("rewrite",)))
        ]
    assert "COVERING INDEX items_ready" in plans[0]
    assert not any("SCAN items" in plan or "SCAN counts" in plan for plan in plans)
    assert "TEMP B-TREE" not in plans[0]


async def test_a_caption_goes_through_every_stage_but_the_optional(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 1)
        [task] = await ready(store)
        stages = []
        while True:
            stages.append(task.stage)
            recorded = await record(store, [task])
            if not recorded.tasks:
                break
            [task] = recorded.tasks
        assert stages == [stage for stage in CAPTION_STAGES if stage not in OPTIONAL_STAGES]
        assert (recorded.finished, recorded.done_jobs) == ((task.item,), (job.id,))
        row = await store.job(job.id)
        assert row is not None
        assert (row.state, await states_of(store, row.id)) == (JobState.DONE, {ItemState.SAMPLED: 1})
        assert row.finished_at is not None


async def test_inputs_carry_what_earlier_stages_answered(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1)
        [task] = await advance_to(store, Stage.LOCATE)
        images = (f"{task.item}-1-1.png", f"{task.item}-1-2.png")
        assert await store.stage_inputs(Stage.LOCATE, [task.item]) == [
            LocateInput(task.item, *images, ("cat",), ("dog",))
        ]
        await record(store, [task])
        [described] = await store.stage_inputs(Stage.DESCRIBE, [task.item])
        assert isinstance(described, DescribeInput)
        assert [(region.index, region.box) for region in described.regions] == [(0, BOXES[0]), (1, BOXES[1])]
        await advance_to(store, Stage.CONTRAST)
        [contrasted] = await store.stage_inputs(Stage.CONTRAST, [task.item])
        assert isinstance(contrasted, ContrastInput)
        sides = [left_image(PROFILE, "a cat on mat number 1", 1, index) for index in (0, 1)]
        assert [(region.text1, region.text2, region.left) for region in contrasted.regions] == [
            ("a cat", "a dog", side) for side in sides
        ]
        await advance_to(store, Stage.RENDER)
        [rendered] = await store.stage_inputs(Stage.RENDER, [task.item])
        assert isinstance(rendered, RenderInput)
        assert [region.left for region in rendered.regions] == sides


async def test_inputs_keep_their_order_and_leave_out_moved_items(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 4)
        tasks = await ready(store)
        await record(store, [tasks[1]])
        await store.quarantine(tasks[2].item, "worker_died", "")
        wanted = [tasks[3].item, tasks[2].item, tasks[1].item, tasks[0].item, 999]
        assert [one.item for one in await store.stage_inputs(Stage.REWRITE, wanted)] == [tasks[3].item, tasks[0].item]


async def test_a_stale_result_changes_nothing_and_is_counted(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 3)
        tasks = await ready(store)
        inputs = await store.stage_inputs(Stage.REWRITE, [task.item for task in tasks])
        await record(store, tasks[:1])  # moved on
        await record(store, tasks[1:2], passes=False)  # is at its second attempt
        await store.quarantine(tasks[2].item, "worker_died", "")  # has ended
        before = [await store.item_story(task.item) for task in tasks]
        counted = await store.funnel()
        late = await store.record(Stage.REWRITE, "cpu:1", PROFILE, answers(inputs), dict.fromkeys((1, 2, 3), 1), 1.0)
        assert (late.stale, late.tasks, late.finished) == (3, (), ())
        assert [await store.item_story(task.item) for task in tasks] == before
        assert await store.funnel() == counted


async def test_a_result_of_a_cancelled_job_is_stale(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 1)
        [task] = await advance_to(store, Stage.RENDER)
        inputs = await store.stage_inputs(Stage.RENDER, [task.item])
        await store.cancel(job.id)
        late = await store.record(Stage.RENDER, "cpu:0", PROFILE, answers(inputs), {task.item: task.attempt}, 1.0)
        assert late.stale == 1
        assert await store.samples() == []


async def test_the_same_result_twice_makes_one_sample(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1)
        [task] = await advance_to(store, Stage.RENDER)
        inputs = await store.stage_inputs(Stage.RENDER, [task.item])
        for stale in (0, 1):
            done = await store.record(Stage.RENDER, "cpu:0", PROFILE, answers(inputs), {task.item: 1}, 1.0)
            assert done.stale == stale
        assert len(await store.samples()) == 2


async def test_every_rewrite_attempt_is_kept_with_its_reason(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1)
        for attempt in range(1, PROFILE.rewrite.attempts + 1):
            [task] = await ready(store)
            assert (task.stage, task.attempt) == (Stage.REWRITE, attempt)
            await record(store, [task], passes=False)
        assert await ready(store) == []
        story = await store.item_story(task.item)
        assert (story.state, story.reason, story.job.state) == (ItemState.REJECTED, "unchanged", JobState.DONE)
        assert [(row.attempt, row.reason, row.seed) for row in story.rewrites] == [
            (attempt, "unchanged", seed_of(PROFILE.seed, story.caption, attempt, "rewrite"))
            for attempt in range(1, PROFILE.rewrite.attempts + 1)
        ]
        assert (await store.funnel()).verdicts == {Stage.REWRITE: {"unchanged": PROFILE.rewrite.attempts}}


async def test_painting_is_seeded_by_the_accepted_rewrite_attempt(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1)
        await record(store, await ready(store), passes=False)
        await finish(store)
        [first, _] = await store.samples()
        assert (first.attempt, first.image1) == (2, f"{first.item}-2-1.png")
        assert first.rewrite_seed == seed_of(PROFILE.seed, first.caption1, 2, "rewrite")


async def test_scores_are_kept_for_rejects_too(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 2)
        pair, boxes = await advance_to(store, Stage.COMPARE)
        await record(store, [pair], passes=False)
        [located] = (await record(store, [boxes])).tasks
        await record(store, [located], passes=False, boxes=3)
        story = await store.item_story(pair.item)
        assert (story.state, story.reason) == (ItemState.REJECTED, "pair_too_different")
        assert story.pair is not None
        assert story.pair.scores == {"clip_image_cosine": 0.5}
        story = await store.item_story(boxes.item)
        assert (story.state, story.reason) == (ItemState.REJECTED, "no_region")
        assert [(box.box, box.reason, box.scores["clip_image_cosine"]) for box in story.candidates] == [
            (box, "crops_too_similar", 0.99) for box in BOXES
        ]


async def test_previews_are_kept_and_a_pair_given_up_has_no_images(tmp_path: Path) -> None:
    abort = Abort(mode="on", below=0.8, finished=0.0)
    profile = PROFILE.model_copy(update={"generate": PROFILE.generate.model_copy(update={"abort": abort})})
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 2, profile=profile)
        lost, kept = await advance_to(store, Stage.GENERATE)
        outputs = [
            GenerateOutput(lost.item, None, None, 100, 100, 7, {"preview_cosine": 0.5}),
            GenerateOutput(kept.item, "a.png", "b.png", 100, 100, 8, {"preview_cosine": 0.9}),
        ]
        done = await store.record(Stage.GENERATE, "cpu:0", profile, outputs, {lost.item: 1, kept.item: 1}, 1.0)
        assert ([task.item for task in done.tasks], done.finished) == ([kept.item], (lost.item,))
        await record(store, done.tasks, profile=profile)
        story = await store.item_story(lost.item)
        assert (story.stage, story.state, story.reason) == (
            Stage.GENERATE,
            ItemState.REJECTED,
            "preview_too_different",
        )
        assert story.pair is not None
        assert (story.pair.image1, story.pair.seed, story.pair.scores) == ("", 7, {"preview_cosine": 0.5})
        story = await store.item_story(kept.item)
        assert story.pair is not None
        assert story.pair.scores == {"preview_cosine": 0.9, "clip_image_cosine": 0.95}


async def test_a_missing_or_impossible_score_never_keeps_a_pair(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 2)
        tasks = await advance_to(store, Stage.COMPARE)
        outputs = [CompareOutput(tasks[0].item, {}), CompareOutput(tasks[1].item, {"clip_image_cosine": math.nan})]
        done = await store.record(Stage.COMPARE, "cpu:0", PROFILE, outputs, {task.item: 1 for task in tasks}, 1.0)
        assert len(done.finished) == 2
        for task in tasks:
            story = await store.item_story(task.item)
            assert (story.state, story.reason) == (ItemState.REJECTED, "score_missing")
            assert story.pair is not None
            assert story.pair.scores == {}


async def test_a_region_that_fails_its_description_is_not_contrasted(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1)
        [task] = await advance_to(store, Stage.DESCRIBE)
        [given] = await store.stage_inputs(Stage.DESCRIBE, [task.item])
        output = answer(given)
        assert output.kind == "describe"
        first = dataclasses.replace(output.regions[0], text2="  ")
        output = dataclasses.replace(output, regions=(first, output.regions[1]))
        await store.record(Stage.DESCRIBE, "cpu:0", PROFILE, [output], {task.item: 1}, 1.0)
        [contrasted] = await store.stage_inputs(Stage.CONTRAST, [task.item])
        assert contrasted.kind == "contrast"
        assert [region.index for region in contrasted.regions] == [1]
        await finish(store)
        assert [sample.region for sample in await store.samples()] == [1]
        story = await store.item_story(task.item)
        assert [(region.reason, region.text1) for region in story.regions] == [
            ("description_empty", "a cat"),
            ("", "a cat"),
        ]


async def test_crashes_outlive_a_restart_and_end_with_a_passed_stage(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 2)
        first, second = await ready(store)
        await store.record_crashes([first.item])
        await store.record_crashes([first.item, second.item, 999])
    async with Store.open(tmp_path / "s.db") as store:
        assert [task.crashes for task in await ready(store)] == [2, 1]
        await record(store, [first])
        assert [(task.item, task.crashes) for task in await ready(store)] == [(first.item, 0), (second.item, 1)]
        assert await store.quarantine(second.item, "broke_rewrite", "signal 11, three times")
        assert not await store.quarantine(second.item, "again", "")
        story = await store.item_story(second.item)
        assert (story.state, story.reason, story.detail) == (
            ItemState.FAILED,
            "broke_rewrite",
            "signal 11, three times",
        )


async def test_a_sample_holds_all_that_an_export_needs(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", clock=lambda: 77.0) as store:
        job = await submit(store, 1, name="cats.jsonl")
        await finish(store)
        first, second = await store.samples()
        assert await store.samples(after=first.id) == [second]
        assert await store.samples(job.id, limit=1) == [first]
        assert await store.samples(job.id + 1) == []
    item = first.item
    assert (first.job, first.job_name, first.source, first.source_id, first.line) == (
        job.id,
        "cats.jsonl",
        "/inbox/cats.jsonl",
        "id-1",
        1,
    )
    assert (first.caption1, first.caption2) == ("a cat on mat number 1", "a dog on mat number 1")
    assert (first.nouns1, first.nouns2) == (("cat",), ("dog",))
    assert (first.image1, first.image2, first.width, first.height) == (f"{item}-1-1.png", f"{item}-1-2.png", 100, 100)
    assert first.rewrite_seed == seed_of(PROFILE.seed, first.caption1, 1, "rewrite")
    assert first.generate_seed == 7
    assert (first.region, first.image, first.box) == (0, 1, BOXES[0])
    assert first.pair_scores == {"clip_image_cosine": 0.95}
    assert first.scores["clip_image_cosine"] == pytest.approx(0.1)
    assert first.scores["clip_text_cosine"] == 0.3
    assert (first.text1, first.text2, first.difference) == ("a cat", "a dog", "A cat became a dog.")
    assert first.left == left_image(PROFILE, first.caption1, 1, 0)
    assert (first.left_image, first.right_image) == (f"{item}-r0-left.png", f"{item}-right.png")
    assert first.created_at == 77.0


async def test_a_reader_beside_the_daemon_pages_through_every_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgdiffd.store.reader.PAGE", 3)
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 4)
        await finish(store)
        with Reader.open(tmp_path / "s.db") as reader:
            rows = list(reader.samples())
            assert rows == sorted(await store.samples(), key=lambda row: (row.item, row.region))
            assert len(rows) == 8
            assert reader.funnel() == await store.funnel()
            assert reader.jobs() == await store.jobs()
            assert reader.item_story(1) == await store.item_story(1)


async def test_named_images_and_items_that_may_name_more_are_listed(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 3)
        tasks = await ready(store)
        await record(store, tasks[:2])
        assert [unfinished(each) for each in (await store.images(range(100))).values()] == [True] * 3
        assert list(await store.images(range(tasks[1].item, 3))) == [tasks[1].item]
        await record(store, (await ready(store))[:1])
        known = await store.images(range(100))
        assert [each.pair for each in known.values()] == [("1-1-1.png", "1-1-2.png"), (), ()]
        await store.quarantine(2, "broke_generate", "boom")
        await finish(store)
        known = await store.images(range(100))
        assert named(known[1]) == {"1-1-1.png", "1-1-2.png", "1-r0-left.png", "1-r1-left.png", "1-right.png"}
        assert not any(map(unfinished, known.values()))
        assert [(each.state, each.live) for each in known.values()] == [
            (ItemState.SAMPLED, True),
            (ItemState.FAILED, True),
            (ItemState.SAMPLED, True),
        ]
        await submit(store, captions(2, start=50))
        await store.cancel(2)
        assert {each.live for each in (await store.images(range(4, 6))).values()} == {False}


async def test_rejected_regions_are_read_as_the_samples_they_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgdiffd.store.reader.PAGE", 2)
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 3)
        first, *others = await advance_to(store, Stage.DESCRIBE)
        await record(store, [first], passes=False)  # its descriptions are too similar
        await record(store, others)
        contrasted = await advance_to(store, Stage.CONTRAST)
        with Reader.open(tmp_path / "s.db") as reader:
            assert {each.sample.item for each in reader.rejected_regions()} == {first.item}
        await record(store, contrasted[:1], passes=False)  # nothing is said of their difference
        await finish(store)
        with Reader.open(tmp_path / "s.db") as reader:
            rows = list(reader.rejected_regions())
            assert list(reader.rejected_regions([2])) == []
    assert [(each.sample.item, each.sample.region, each.reason) for each in rows] == [
        (first.item, 0, "descriptions_too_similar"),
        (first.item, 1, "descriptions_too_similar"),
        (others[0].item, 0, "difference_empty"),
        (others[0].item, 1, "difference_empty"),
    ]
    sample = rows[0].sample
    assert (sample.text1, sample.text2, sample.box, sample.left_image) == ("a cat", "a dog", BOXES[0], "")
    assert sample.left == left_image(PROFILE, sample.caption1, 1, 0)
    assert rows[0].settings == PROFILE
