"""Progress arithmetic: what each stage has seen and will see, how long the rest takes, and when each job ends."""

from collections.abc import Mapping, Sequence

import pytest

from imgdiffd.daemon import progress
from imgdiffd.daemon.progress import ends_of, seconds_left, stages_of
from imgdiffd.job import ItemState
from imgdiffd.pipeline import CAPTION_STAGES, OPTIONAL_STAGES, Stage
from imgdiffd.status import StageView

GUESS_S = dict.fromkeys(Stage, 1.0)


def work_of(stages: Sequence[StageView], guess_s: Mapping[Stage, float]) -> float | None:
    left = seconds_left(stages, guess_s)
    return sum(view.waiting * left[view.stage] for view in stages) if left else None


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
    assert work_of(views, GUESS_S) == 4 * 5  # compare, locate, describe, contrast, render
    assert work_of(stages_of(counts, costs), GUESS_S) == 4 * 5 + 4 * 200


def test_a_finished_job_needs_no_more_time() -> None:
    views = stages_of(
        {Stage.REWRITE: {ItemState.REJECTED: 1}, Stage.RENDER: {ItemState.SAMPLED: 9}}, dict.fromkeys(Stage, 1.0)
    )
    assert work_of(views, GUESS_S) == 0
    assert all(view.expected == view.done for view in views)


def test_work_left_is_unknown_before_the_first_batch() -> None:
    counts = {Stage.RENDER: {ItemState.READY: 10}}
    assert work_of(stages_of(counts, {}), GUESS_S) is None
    assert work_of(stages_of(counts, {Stage.RENDER: 3.0}), GUESS_S) == pytest.approx(30.0)


def test_unmeasured_stage_costs_its_guess_scaled_by_the_others() -> None:
    counts = {Stage.GENERATE: {ItemState.READY: 10}, Stage.RENDER: {ItemState.READY: 10}}
    guess_s = {**GUESS_S, Stage.GENERATE: 5.0, Stage.COMPARE: 0.5, Stage.RENDER: 0.0}
    half_as_fast = work_of(stages_of(counts, {Stage.GENERATE: 10.0}, set(Stage) - {*counts}), guess_s)
    assert half_as_fast == 10 * 10.0
    half_as_fast = work_of(stages_of(counts, {Stage.GENERATE: 10.0}, set(Stage) - {*counts, Stage.COMPARE}), guess_s)
    assert half_as_fast == 10 * 10.0 + 10 * 2 * 0.5
    unscaled = work_of(stages_of(counts, {Stage.RENDER: 1.0}, set(Stage) - {*counts}), guess_s)
    assert unscaled == 10 * 5.0 + 20 * 1.0


def test_a_cancelled_jobs_bars_are_not_full() -> None:
    counts = {
        Stage.REWRITE: {ItemState.CANCELLED: 70},
        Stage.GENERATE: {ItemState.CANCELLED: 10, ItemState.FAILED: 5},
        Stage.COMPARE: {ItemState.REJECTED: 10},
        Stage.RENDER: {ItemState.SAMPLED: 5},
    }
    views = {view.stage: view for view in stages_of(counts, {})}
    assert (views[Stage.REWRITE].done, views[Stage.REWRITE].expected) == (30, 100)
    assert (views[Stage.GENERATE].done, views[Stage.GENERATE].expected) == (20, 100)
    assert (views[Stage.COMPARE].done, views[Stage.COMPARE].expected) == (15, 75)
    assert all(view.done < view.expected for view in views.values())


def test_jobs_of_equal_priority_share_the_devices() -> None:
    assert ends_of([(1, 0, 10.0), (2, 0, 30.0)], at_once=512) == {1: 20.0, 2: 40.0}


def test_a_higher_priority_goes_first_and_the_background_last() -> None:
    assert ends_of([(1, -1, 5.0), (2, 0, 10.0), (3, 4, 100.0)], at_once=512) == {3: 100.0, 2: 110.0, 1: 115.0}


def test_a_long_queue_of_small_jobs_ends_one_after_another() -> None:
    queue = [(job, 0, 10.0) for job in range(1, 101)]
    ends = ends_of(queue, at_once=10)
    assert [ends[job] for job in (1, 10, 11, 100)] == [100.0, 100.0, 200.0, 1000.0]
    assert ends_of(queue, at_once=1) == {job: 10.0 * job for job in range(1, 101)}


def test_stages_of_long_ago_are_not_kept_for_ever() -> None:
    kept = [part.cache_info().maxsize for part in vars(progress).values() if hasattr(part, "cache_info")]
    assert all(size is not None and size <= 1000 for size in kept), "their seconds never come again"
