"""What batches cost and how many items fit is learnt from what happened."""

import pytest

from imgdiffd.pipeline import Stage
from imgdiffd.schedulers.cost_table import first_guess_s
from imgdiffd.schedulers.costs import Costs
from imgdiffd.schedulers.limits import BatchLimits

REWRITE, GENERATE, COMPARE, DESCRIBE = (
    (stage, "g") for stage in (Stage.REWRITE, Stage.GENERATE, Stage.COMPARE, Stage.DESCRIBE)
)


def test_stage_never_seen_costs_its_first_guess() -> None:
    assert Costs().seconds("a", GENERATE, 4) == 4 * first_guess_s("paper")[Stage.GENERATE]


def test_measured_seconds_replace_the_first_guess() -> None:
    costs = Costs()
    costs.record("a", DESCRIBE, 4, 2.0)
    assert costs.seconds("a", DESCRIBE, 4) == 2.0


def test_the_estimate_follows_new_measurements() -> None:
    costs = Costs()
    costs.record("a", DESCRIBE, 4, 2.0)
    for _ in range(30):
        costs.record("a", DESCRIBE, 4, 4.0)
    assert costs.seconds("a", DESCRIBE, 4) == pytest.approx(4.0, abs=0.01)


def test_size_never_seen_is_scaled_from_the_nearest_one() -> None:
    costs = Costs()
    costs.record("a", REWRITE, 8, 2.0)
    costs.record("a", REWRITE, 64, 4.0)
    assert costs.seconds("a", REWRITE, 4) == 1.0
    assert costs.seconds("a", REWRITE, 63) == pytest.approx(4.0 * 63 / 64)


def test_device_never_seen_costs_what_the_others_take() -> None:
    costs = Costs()
    costs.record("a", GENERATE, 4, 10.0)
    costs.record("b", GENERATE, 4, 20.0)
    assert costs.seconds("c", GENERATE, 4) == 15.0


def test_each_group_has_its_own_costs_and_its_own_deadline() -> None:
    costs = Costs()
    large, small = (Stage.GENERATE, "1024"), (Stage.GENERATE, "512")
    costs.record("a", large, 4, 30.0)
    costs.record("a", small, 4, 7.0)
    assert (costs.seconds("a", large, 4), costs.seconds("a", small, 4)) == (30.0, 7.0)
    assert (costs.deadline_s("a", large, 4), costs.deadline_s("a", small, 4)) == (300.0, 120.0)
    assert set(costs.learnt()["a"]) == {large, small}


def test_group_foretells_unseen_batches_better_than_the_device() -> None:
    costs = Costs()
    large, small = (Stage.GENERATE, "1024"), (Stage.GENERATE, "512")
    costs.record("a", large, 4, 30.0)
    assert costs.seconds("b", small, 4) == 30.0
    costs.record("b", large, 4, 40.0)
    assert costs.seconds("b", small, 4) == 40.0
    costs.record("a", small, 4, 7.0)
    assert costs.seconds("b", small, 4) == 7.0


def test_queued_seconds_count_whole_batches() -> None:
    costs = Costs()
    costs.record("a", DESCRIBE, 4, 2.0)
    costs.record("a", DESCRIBE, 1, 1.5)
    assert costs.queue_seconds("a", DESCRIBE, 9, 4) == 2 * 2.0 + 1.5


def test_deadline_is_ten_times_p99_but_at_least_two_minutes() -> None:
    costs = Costs()
    costs.record("a", COMPARE, 4, 0.1)
    assert costs.deadline_s("a", COMPARE, 4) == 120.0
    for _ in range(98):
        costs.record("a", GENERATE, 4, 20.0)
    costs.record("a", GENERATE, 4, 30.0)
    costs.record("a", GENERATE, 4, 500.0)
    assert costs.deadline_s("a", GENERATE, 4) == 300.0


def test_the_first_deadline_follows_the_first_guess() -> None:
    assert Costs().deadline_s("a", GENERATE, 4) == 10 * 4 * first_guess_s("paper")[Stage.GENERATE]


def test_batch_larger_than_any_before_has_a_deadline_of_its_own() -> None:
    costs = Costs()
    costs.record("a", REWRITE, 1, 30.0)
    assert costs.deadline_s("a", REWRITE, 64) == 64 * 300.0
    costs.record("a", REWRITE, 64, 40.0)
    assert costs.deadline_s("a", REWRITE, 64) == 400.0


def test_the_deadline_doubles_until_a_batch_ends_in_time() -> None:
    costs = Costs()
    first_s = costs.deadline_s("a", GENERATE, 4)
    costs.overdue("a", GENERATE)
    costs.overdue("a", GENERATE)
    assert costs.deadline_s("a", GENERATE, 4) == 4 * first_s
    assert costs.deadline_s("b", GENERATE, 4) == first_s
    costs.record("a", GENERATE, 4, 700.0)
    costs.overdue("a", GENERATE)
    assert costs.deadline_s("a", GENERATE, 4) == 7000.0


def test_an_earlier_runs_seconds_hold_until_measured_anew() -> None:
    costs = Costs()
    costs.expect("a", GENERATE, {4: 100.0})
    assert costs.seconds("a", GENERATE, 2) == 50.0
    assert costs.deadline_s("a", GENERATE, 4) == 1000.0
    costs.expect("a", COMPARE, {32: 1e-6})
    assert costs.deadline_s("a", COMPARE, 32) == 120.0
    costs.record("a", GENERATE, 4, 20.0)
    assert costs.seconds("a", GENERATE, 4) == 80.0
    assert costs.deadline_s("a", GENERATE, 4) == 200.0


@pytest.mark.parametrize("seconds", [{}, {0: 1.0}, {4: -1.0}, {4: float("nan")}])
def test_nonsense_is_not_seconds_of_an_earlier_run(seconds: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="not seconds"):
        Costs().expect("a", GENERATE, seconds)


def test_nonsense_is_not_a_measurement() -> None:
    with pytest.raises(ValueError, match="not a measurement"):
        Costs().record("a", GENERATE, 0, 1.0)


def test_learnt_costs_are_shown_by_device_and_stage() -> None:
    costs = Costs()
    costs.record("a", DESCRIBE, 4, 2.0)
    shown = costs.learnt()["a"][DESCRIBE]
    assert (dict(shown.seconds_by_items), shown.batches, shown.p99_s) == ({4: 2.0}, 1, 2.0)


def test_out_of_memory_halves_only_that_device_and_stage() -> None:
    limits = BatchLimits()
    limits.out_of_memory("a", REWRITE, 64)
    assert limits.limit("a", REWRITE) == 32
    assert limits.limit("b", REWRITE) == 64
    assert limits.limit("a", GENERATE) == 4


def test_group_that_does_not_fit_leaves_other_batches_alone() -> None:
    limits = BatchLimits()
    limits.out_of_memory("a", (Stage.GENERATE, "1024"), 4)
    assert limits.limit("a", (Stage.GENERATE, "1024")) == 2
    assert limits.limit("a", (Stage.GENERATE, "512")) == 4


def test_two_batches_in_flight_that_do_not_fit_halve_once() -> None:
    limits = BatchLimits()
    limits.out_of_memory("a", REWRITE, 64)
    limits.out_of_memory("a", REWRITE, 64)
    assert limits.limit("a", REWRITE) == 32


def test_a_large_batch_that_fails_late_does_not_raise_the_cap() -> None:
    limits = BatchLimits()
    for size in (64, 32, 64):
        limits.out_of_memory("a", REWRITE, size)
    assert limits.limit("a", REWRITE) == 16
    for _ in range(512):
        limits.worked("a", REWRITE, 16)
    assert limits.limit("a", REWRITE) == 32


def test_cap_is_remembered_through_success() -> None:
    limits = BatchLimits()
    limits.out_of_memory("a", REWRITE, 64)
    for _ in range(255):
        limits.worked("a", REWRITE, 32)
    assert limits.limit("a", REWRITE) == 32
    assert limits.caps("a") == {REWRITE: 32}


def test_a_failed_doubling_is_tried_ever_more_rarely() -> None:
    limits = BatchLimits()
    limits.out_of_memory("a", REWRITE, 64)
    for _ in range(256):
        limits.worked("a", REWRITE, 32)
    assert limits.limit("a", REWRITE) == 64
    limits.out_of_memory("a", REWRITE, 64)
    for _ in range(511):
        limits.worked("a", REWRITE, 32)
    assert limits.limit("a", REWRITE) == 32
    limits.worked("a", REWRITE, 32)
    assert limits.limit("a", REWRITE) == 64


def test_one_item_that_does_not_fit_changes_no_batch_size() -> None:
    limits = BatchLimits()
    limits.out_of_memory("a", REWRITE, 1)
    assert limits.limit("a", REWRITE) == 64
