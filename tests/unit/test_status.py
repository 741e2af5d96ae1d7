"""Progress arithmetic: what each stage has seen, will see, and how long the rest takes."""

import pytest

from imgdiffd.job import ItemState
from imgdiffd.pipeline import CAPTION_STAGES, OPTIONAL_STAGES, Stage
from imgdiffd.status import JobView, RemovalView, Status, eta_of, headline, stages_of

GUESS_S = dict.fromkeys(Stage, 1.0)


def test_every_item_is_counted_once_at_each_stage_it_reached() -> None:
    counts = {
        Stage.REWRITE: {ItemState.READY: 4, ItemState.REJECTED: 2},
        Stage.COMPARE: {ItemState.READY: 1, ItemState.REJECTED: 3},
        Stage.RENDER: {ItemState.SAMPLED: 5},
    }
    views = {view.stage: view for view in stages_of(counts, {})}
    assert (views[Stage.REWRITE].waiting, views[Stage.REWRITE].passed, views[Stage.REWRITE].stopped) == (4, 9, 2)
    assert (views[Stage.COMPARE].waiting, views[Stage.COMPARE].passed, views[Stage.COMPARE].stopped) == (1, 5, 3)
    assert (views[Stage.RENDER].waiting, views[Stage.RENDER].passed, views[Stage.RENDER].stopped) == (0, 5, 0)


def test_expected_work_is_reduced_by_earlier_pass_rates() -> None:
    counts = {Stage.REWRITE: {ItemState.READY: 100, ItemState.REJECTED: 50}, Stage.GENERATE: {ItemState.READY: 50}}
    views = {view.stage: view for view in stages_of(counts, {})}
    assert views[Stage.GENERATE].upstream == 50
    assert views[Stage.GENERATE].expected == 100


def test_a_skipped_stage_is_not_shown_and_costs_no_time() -> None:
    counts = {Stage.COMPARE: {ItemState.READY: 4}, Stage.RENDER: {ItemState.SAMPLED: 4}}
    costs = {**dict.fromkeys(Stage, 1.0), Stage.VET: 100.0, Stage.SCREEN: 100.0}
    views = stages_of(counts, costs, OPTIONAL_STAGES)
    assert [view.stage for view in views] == [stage for stage in CAPTION_STAGES if stage not in OPTIONAL_STAGES]
    assert eta_of(views, 1, GUESS_S) == 4 * 5  # compare, locate, describe, contrast, render
    assert eta_of(stages_of(counts, costs), 1, GUESS_S) == 4 * 5 + 4 * 200


def test_a_finished_job_needs_no_more_time() -> None:
    views = stages_of(
        {Stage.REWRITE: {ItemState.REJECTED: 1}, Stage.RENDER: {ItemState.SAMPLED: 9}}, dict.fromkeys(Stage, 1.0)
    )
    assert eta_of(views, 2, GUESS_S) == 0
    assert all(view.expected == view.done for view in views)


def test_time_left_is_shared_by_devices_and_unknown_at_first() -> None:
    counts = {Stage.RENDER: {ItemState.READY: 10}}
    assert eta_of(stages_of(counts, {}), 2, GUESS_S) is None
    assert eta_of(stages_of(counts, {Stage.RENDER: 3.0}), 2, GUESS_S) == pytest.approx(15.0)
    assert eta_of(stages_of(counts, {Stage.RENDER: 3.0}), 0, GUESS_S) is None


def test_unmeasured_stage_costs_its_guess_scaled_by_the_others() -> None:
    counts = {Stage.GENERATE: {ItemState.READY: 10}, Stage.RENDER: {ItemState.READY: 10}}
    guess_s = {**GUESS_S, Stage.GENERATE: 5.0, Stage.COMPARE: 0.5, Stage.RENDER: 0.0}
    half_as_fast = eta_of(stages_of(counts, {Stage.GENERATE: 10.0}, set(Stage) - {*counts}), 1, guess_s)
    assert half_as_fast == 10 * 10.0
    half_as_fast = eta_of(stages_of(counts, {Stage.GENERATE: 10.0}, set(Stage) - {*counts, Stage.COMPARE}), 1, guess_s)
    assert half_as_fast == 10 * 10.0 + 10 * 2 * 0.5
    unscaled = eta_of(stages_of(counts, {Stage.RENDER: 1.0}, set(Stage) - {*counts}), 1, guess_s)
    assert unscaled == 10 * 5.0 + 20 * 1.0


def test_the_headline_mentions_removal_while_some_is_left() -> None:
    job = JobView(
        id=1, name="a.txt", state="done", profile="default", created_at=1.0, finished_at=2.0, captions=64,
        duplicates=0, problems=0, sampled=40, rejected=24, failed=0, cancelled=0, samples=41, error=None,
        duplicate_of=None, removal=RemovalView(waiting=7, sampled=2, rejected=1, samples=3),
    )  # fmt: skip
    status = Status(
        version="1", pid=1, uptime_s=0.0, ready=True, paused=False, problems=(), bundle="mini", inbox="",
        open_tasks=0, steals=0, devices=(), jobs=(job, job),
    )  # fmt: skip
    said = "object removal: 6 of 20 pairs, samples: 6"
    assert headline(status) == f"0 of 0 devices ready; no job is open; {said}"
    active = status.model_copy(update={"jobs": (job.model_copy(update={"state": "active"}), job)})
    assert said in headline(active)
    assert "removal" not in headline(status.model_copy(update={"no_removal": "removal = false"}))
    ended = job.model_copy(update={"removal": RemovalView(sampled=3, samples=3)})
    assert "removal" not in headline(status.model_copy(update={"jobs": (ended,)}))
