"""Progress, funnel, timings and stories."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from imgdiffd.daemon.views import funnel_view
from imgdiffd.errors import InputError
from imgdiffd.job import ItemState
from imgdiffd.method.profile import load_profile
from imgdiffd.pipeline import CAPTION_STAGES, Pipeline, Stage
from imgdiffd.store import Store, Timing
from tests.fakes.answers import captions
from tests.fakes.store_driver import advance_to, finish, progress_of, ready, record, states_of, submit

pytestmark = pytest.mark.anyio


async def _mixed(store: Store) -> None:
    """Six captions: one unfit to rewrite, a pair too different, one quarantined, one without regions, two sampled."""
    await submit(store, 6)
    unchanged, *rest = await ready(store)
    while task := next((task for task in await ready(store) if task.item == unchanged.item), None):
        await record(store, [task], passes=False)
    await record(store, rest)
    await record(store, await ready(store))
    different, broken, *rest = await ready(store)
    await record(store, [different], passes=False)
    await store.quarantine(broken.item, "broke_compare", "signal 11")
    await record(store, rest)
    boxless, *rest = await ready(store)
    await record(store, [boxless], passes=False, boxes=3)
    await record(store, rest)
    await finish(store)


async def test_the_funnel_shows_how_far_everything_came_and_why(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await _mixed(store)
        await submit(store, captions(1), name="again")
        funnel = await store.funnel()
        captioned = funnel.progress[Pipeline.REPLACEMENT]
        assert (captioned.total, funnel.duplicates, funnel.problems) == (6, 1, 0)
        assert [captioned.passed(stage) for stage in (Stage.REWRITE, Stage.GENERATE, Stage.COMPARE)] == [5, 5, 3]
        assert (funnel.judged(Stage.LOCATE), funnel.passed(Stage.LOCATE)) == (3 + 2 * 2, 4)
        assert funnel.passed(Stage.DESCRIBE) == 4
        assert (captioned.samples, captioned.in_state(ItemState.SAMPLED)) == (4, 2)
        assert captioned.lost == {
            Stage.REWRITE: {"unchanged": 1},
            Stage.COMPARE: {"pair_too_different": 1, "broke_compare": 1},
            Stage.LOCATE: {"no_region": 1},
        }
        assert funnel.verdicts[Stage.LOCATE] == {"": 4, "crops_too_similar": 3}
        assert (await store.funnel(1)).duplicates == 0
        assert (await store.funnel(2)).progress[Pipeline.REPLACEMENT].total == 0


async def test_progress_adds_up_at_every_stage(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await _mixed(store)
        await submit(store, captions(2, start=70), name="more")
        await record(store, (await ready(store))[:1])
        progress = await progress_of(store)
        assert progress.total == 8
        assert progress.samples == 4
        assert {state: progress.in_state(state) for state in ItemState} == {
            ItemState.READY: 2,
            ItemState.SAMPLED: 2,
            ItemState.REJECTED: 3,
            ItemState.FAILED: 1,
            ItemState.CANCELLED: 0,
        }
        assert [progress.passed(stage) for stage in CAPTION_STAGES] == [6, 5, 3, 3, 2, 2, 2, 2, 2]
        waiting = {
            stage: states[ItemState.READY] for stage, states in progress.stages.items() if ItemState.READY in states
        }
        assert waiting == {Stage.REWRITE: 1, Stage.GENERATE: 1}
        assert (await progress_of(store, 2)).total == 2
        assert (await progress_of(store, 2)).samples == 0
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        kept = connection.execute("SELECT * FROM counts WHERE n > 0 ORDER BY 1, 2, 3, 4, 5").fetchall()
        counted = connection.execute(
            "SELECT job_id, pipeline, stage, state, reason, count(*) FROM items"
            " GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
        ).fetchall()
    assert kept == counted


async def test_status_never_reads_the_items(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 2)
        await advance_to(store, Stage.COMPARE)
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("DROP TABLE items")
    async with Store.open(tmp_path / "s.db") as store:
        assert (await progress_of(store)).stages[Stage.COMPARE][ItemState.READY] == 2
        assert (await store.funnel()).progress[Pipeline.REPLACEMENT].passed(Stage.GENERATE) == 2
        assert await states_of(store, (await store.jobs())[0].id) == {ItemState.READY: 2}


async def test_timings_add_up_by_stage_and_device(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", clock=lambda: 9.0) as store:
        await submit(store, 5)
        tasks = await ready(store)
        await record(store, tasks[:3])
        await record(store, tasks[3:])
        await record(store, (await ready(store))[:1])
        assert await store.timings() == [
            Timing(Stage.REWRITE, "cpu:0", 2, 5, 1.0, 9.0),
            Timing(Stage.GENERATE, "cpu:0", 1, 1, 0.5, 9.0),
        ]


async def test_an_unknown_item_or_job_is_said_to_be_unknown(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        assert await store.job(5) is None
        for call, code in (
            (store.item_story(5), "unknown_item"),
            (store.progress(5), "unknown_job"),
            (store.funnel(5), "unknown_job"),
            (store.profile_of("5"), "unknown_profile"),
        ):
            with pytest.raises(InputError) as caught:
                await call
            assert caught.value.code == code


async def test_a_profile_comes_back_as_it_was_given(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        job = await submit(store, 1)
        [task] = await ready(store)
        assert task.group == job.group
        profile = await store.profile_of(task.group)
        assert profile == (await store.item_story(task.item)).profile
        assert profile.name == "default"


async def test_a_story_says_how_tokens_were_chosen(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db") as store:
        await submit(store, 1, profile=load_profile("data-juicer"))
        [task] = await ready(store)
        sampling = (await store.item_story(task.item)).sampling
        greedy = {"temperature": 0.0, "max_new_tokens": 1024}
        rewrite = {"temperature": 0.9, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05, "max_new_tokens": 512}
        assert sampling == {"rewrite": rewrite, "describe": greedy, "contrast": greedy}


async def test_failed_cancelled_and_waiting_captions_are_in_the_funnel(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "s.db", removal=True) as store:
        await _mixed(store)
        more = await submit(store, captions(5, start=70), name="more")
        tasks = [task for task in await advance_to(store, Stage.LOCATE) if task.stage is Stage.LOCATE]
        await store.quarantine(tasks[0].item, "broke_locate", "signal 11")
        await record(store, tasks[1:2])
        await store.cancel(more.id)
        await submit(store, captions(3, start=90), name="waiting")
        funnel = funnel_view(await store.funnel())
        steps = {step.name: step for step in funnel.steps}
        assert steps["pairs with a region"].lost == {"cancelled": 3, "no_region": 1, "broke_locate": 1}
        assert steps["pairs with a sample"].lost == {"cancelled": 1}
        assert (steps["rewritten"].base, steps["rewritten"].waiting) == (14, 3)
        ends = {step.name: step.count for step in funnel.ends if step.counts == "captions"}
        assert ends == {
            "captions with a sample": 2,
            "captions rejected": 3,
            "captions failed": 2,
            "captions cancelled": 4,
            "captions waiting": 3,
        }
