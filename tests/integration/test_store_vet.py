"""The natural-image filter in the database: who is asked, what is kept, and what databases without it are spared."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.daemon.views import funnel_view
from imgdiffd.job import ItemState
from imgdiffd.method.filters import judge_natural
from imgdiffd.method.messages import ScreenOutput, VetInput
from imgdiffd.pipeline import CAPTION_STAGES, OPTIONAL_STAGES, Pipeline, Stage, Task
from imgdiffd.store import FunnelCounts, Store
from tests.fakes.answers import PROFILE, SCREENED, VETTED, answer, captions
from tests.fakes.store_driver import progress_of, ready, record, submit

pytestmark = pytest.mark.anyio


async def _stages(store: Store) -> list[Stage]:
    """The stages of one caption, in the order in which it goes through them."""
    [task] = await ready(store)
    stages = []
    while True:
        stages.append(task.stage)
        profile = await store.profile_of(task.group)
        recorded = await record(store, [task], profile=profile)
        if not recorded.tasks:
            return stages
        [task] = recorded.tasks


async def test_a_pair_is_vetted_between_compare_and_locate_on_request(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1, profile=VETTED)
        assert await _stages(store) == [stage for stage in CAPTION_STAGES if stage is not Stage.SCREEN]
        await submit(store, 1, profile=SCREENED)
        assert await _stages(store) == [stage for stage in CAPTION_STAGES if stage is not Stage.VET]
        await submit(store, 1, profile=PROFILE, name="not vetted")
        assert await _stages(store) == [stage for stage in CAPTION_STAGES if stage not in OPTIONAL_STAGES]


async def test_rejects_keep_their_answer_and_score(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 2, profile=VETTED)
        tasks: list[Task] = []
        while not tasks or tasks[0].stage is not Stage.VET:
            tasks = await ready(store)
            if tasks[0].stage is not Stage.VET:
                await record(store, tasks, profile=VETTED)
        [asked] = await store.stage_inputs(Stage.VET, [tasks[0].item])
        assert asked == VetInput(tasks[0].item, f"{tasks[0].item}-1-1.png", f"{tasks[0].item}-1-2.png")
        await record(store, tasks[:1], passes=False, profile=VETTED)
        await record(store, tasks[1:], profile=VETTED)
        stories = [await store.item_story(task.item) for task in tasks]
        assert [(story.stage, story.state, story.reason) for story in stories] == [
            (Stage.VET, ItemState.REJECTED, "unnatural"),
            (Stage.LOCATE, ItemState.READY, ""),
        ]
        pairs = [story.pair for story in stories]
        assert [pair.answer for pair in pairs if pair] == ["no.", "Yes"]
        assert [pair.scores for pair in pairs if pair] == [
            {"clip_image_cosine": 0.95, "yes_probability": 0.2},
            {"clip_image_cosine": 0.95, "yes_probability": 0.9},
        ]
        for yes_above, passing in ((0.1, [True, True]), (0.5, [False, True]), (0.95, [False, False])):
            again = PROFILE.natural.model_validate({"rule": "probability", "yes_above": {"value": yes_above}})
            assert [judge_natural(pair.answer, pair.scores, again).passed for pair in pairs if pair] == passing


async def test_a_sample_that_looks_unnatural_is_dropped_alone(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1, profile=SCREENED)
        [task] = await ready(store)
        while task.stage is not Stage.SCREEN:
            await record(store, [task], profile=SCREENED)
            [task] = await ready(store)
        [asked] = await store.stage_inputs(Stage.SCREEN, [task.item])
        good, bad = answer(asked), answer(asked, passes=False)
        assert isinstance(good, ScreenOutput)
        assert isinstance(bad, ScreenOutput)
        mixed = ScreenOutput(task.item, (bad.regions[0], good.regions[1]))
        await store.record(Stage.SCREEN, "cpu", SCREENED, [mixed], {task.item: 1}, 1.0)
        [task] = await ready(store)
        await record(store, [task], profile=SCREENED)
        story = await store.item_story(task.item)
        assert (story.stage, story.state, [sample.region for sample in story.samples]) == (
            Stage.RENDER,
            ItemState.SAMPLED,
            [1],
        )
        assert [(each.reason, each.scores["yes_probability"]) for each in story.regions] == [
            ("unnatural", 0.2),
            ("", 0.9),
        ]
        assert story.regions[0].detail == "answer 'no.', yes_probability 0.2000, wanted yes"
        steps = {step.name: step for step in funnel_view(await store.funnel()).steps}
        assert (steps["samples"].count, steps["samples"].lost) == (1, {"unnatural": 1})


def vetted_of(funnel: FunnelCounts) -> tuple[int, int, int]:
    alike = funnel.progress[Pipeline.REPLACEMENT].passed(Stage.COMPARE)
    return alike, funnel.judged(Stage.VET), funnel.passed(Stage.VET)


async def test_the_funnel_counts_vetted_pairs_and_their_reject_reasons(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 3, profile=VETTED)
        while (tasks := await ready(store))[0].stage is not Stage.VET:
            await record(store, tasks, profile=VETTED)
        await record(store, tasks[:1], passes=False, profile=VETTED)
        await record(store, tasks[1:2], profile=VETTED)
        await submit(store, 2, name="not vetted")
        while tasks := [task for task in await ready(store) if task.stage is not Stage.VET]:
            group = [task for task in tasks if task.stage is tasks[0].stage and task.group == tasks[0].group]
            await record(store, group, profile=await store.profile_of(group[0].group))
        funnel = await store.funnel()
        assert vetted_of(funnel) == (5, 2, 1)
        assert funnel.progress[Pipeline.REPLACEMENT].lost == {Stage.VET: {"unnatural": 1}}
        assert (await progress_of(store)).stages[Stage.VET][ItemState.READY] == 1
        only = await store.funnel(2)
        assert vetted_of(only) == (2, 0, 0)


async def test_a_profile_without_the_filter_is_stored_as_before(tmp_path: Path) -> None:
    """Its text is what jobs and captions are known by: another one would have an older database do all work again."""
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1)
        changed = PROFILE.natural.model_copy(update={"prompt": "Is it?"})
        unused = PROFILE.model_copy(update={"natural": changed})
        again = await submit(store, captions(1), name="again", profile=unused)
        assert again.duplicates == 1
        vetted = await submit(store, 1, name="vetted", profile=VETTED)
        assert (vetted.duplicates, await store.profile_of(vetted.group)) == (0, VETTED)
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        texts = [row[0] for row in connection.execute("SELECT json FROM profiles ORDER BY id")]
    assert ["natural" in text for text in texts] == [False, True]
