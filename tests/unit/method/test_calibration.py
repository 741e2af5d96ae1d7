"""Thresholds of early abort hold what they promise: shown by seeded repetitions, and by what drift does to them."""

import math
import random
from collections.abc import Iterator

import pytest

from imgdiffd.method.calibration import (
    CERTAINTY,
    FALSE_ALARM_EVERY,
    Calibration,
    Preview,
    Side,
    calibrate,
    least_kept,
    most_lost,
    upper_bound,
    with_thresholds,
)
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_sections import Abort

_DEFAULT = load_profile("default")
ON = _DEFAULT.model_copy(update={"generate": _DEFAULT.generate.model_copy(update={"abort": Abort(mode="on")})})

LOSS = 0.05  # the laws are the same for every loss; this one needs 59 kept pairs, so that repetitions are cheap
KEPT_SHARE = 0.4


def pairs(draw: random.Random, shift: float = 0.0) -> Iterator[Preview]:
    """Pairs as they come: kept ones have the higher previews, and the true share of them under t is `lost_under(t)`."""
    while True:
        kept = draw.random() < KEPT_SHARE
        yield Preview(draw.gauss(1.5 - shift if kept else 0.0, 1.0), kept)


def lost_under(threshold: float, shift: float = 0.0) -> float:
    return 0.5 * math.erfc(-(threshold - 1.5 + shift) / math.sqrt(2))


def first(count: int, source: Iterator[Preview]) -> list[Preview]:
    """The first pairs up to `count` kept ones."""
    found: list[Preview] = []
    while count:
        found.append(next(source))
        count -= found[-1].kept
    return found


def at_most(expected: float, runs: int) -> float:
    """A count that a share of at most `expected` passes in one of a thousand tests."""
    return expected * runs + 3.1 * math.sqrt(expected * (1 - expected) * runs)


def test_the_bound_is_the_exact_binomial_one() -> None:
    assert least_kept(0.005) == 598
    assert [most_lost(kept, 0.005) for kept in (0, 597, 598, 946, 947, 2392)] == [None, None, 0, 0, 1, 6]
    assert upper_bound(0, 598) <= 0.005 < upper_bound(0, 597)
    assert upper_bound(3, 100) == pytest.approx(0.0757, abs=1e-4)  # R: binom.test(3, 100, alternative = "less")
    assert upper_bound(7, 7) == 1.0
    for kept in (598, 2392, 6000):
        lost = most_lost(kept, 0.005)
        assert lost is not None
        assert upper_bound(lost, kept) <= 0.005 < upper_bound(lost + 1, kept)


@pytest.mark.parametrize(("kept", "runs"), [(59, 1000), (236, 400)])
def test_a_threshold_loses_too_much_in_one_of_twenty_runs(kept: int, runs: int) -> None:
    draw, missed = random.Random(kept), 0
    for _ in range(runs):
        threshold = calibrate(first(kept, pairs(draw)), LOSS).below.threshold
        missed += threshold is not None and lost_under(threshold) > LOSS
    assert missed <= at_most(1 - CERTAINTY, runs)
    assert missed > 0.3 * (1 - CERTAINTY) * runs  # and is not more careful than it must be


def run_under(draw: random.Random, finished: float, *, count_all: bool) -> float:
    """The true loss of a threshold fitted while another one was in force; `finished` are painted whatever they show."""
    kept, source = least_kept(LOSS), pairs(draw)
    previews = first(kept, source)
    in_force = min(each.score for each in previews if each.kept)
    while kept < 4 * least_kept(LOSS):
        pair, drawn = next(source), draw.random() < finished
        if drawn or (count_all and pair.score >= in_force):
            previews.append(pair)
            kept += pair.kept
    threshold = calibrate(previews, LOSS).below.threshold
    assert threshold is not None
    return lost_under(threshold)


def test_bound_holds_where_others_were_given_up_unseen() -> None:
    draw, runs = random.Random(3), 150
    missed = sum(run_under(draw, 0.1, count_all=False) > LOSS for _ in range(runs))
    assert missed <= at_most(1 - CERTAINTY, runs)


def test_counting_pairs_that_were_let_through_would_break_it() -> None:
    draw, runs = random.Random(3), 100
    missed = sum(run_under(draw, 0.1, count_all=True) > LOSS for _ in range(runs))
    assert missed > 2 * at_most(1 - CERTAINTY, runs)


def test_each_side_has_its_own_threshold_and_loss() -> None:
    draw = random.Random(5)
    found = [Preview(draw.gauss(0, 1 if kept else 3), kept) for kept in (n % 3 == 0 for n in range(6000))]
    both = calibrate(found, 0.005)
    turned = calibrate([Preview(-each.score, each.kept) for each in found], 0.005)
    assert both.below.threshold is not None
    assert both.above.threshold is not None
    assert both.below.threshold < -2 < 2 < both.above.threshold
    assert turned.above.threshold == -both.below.threshold
    assert both.below.lost == most_lost(both.below.fitted, 0.005)
    assert both.given_up == both.below.given_up + both.above.given_up > 0.2


def test_a_side_that_would_give_up_next_to_nothing_stays_open() -> None:
    found = calibrate(first(1196, pairs(random.Random(6))), 0.005)
    assert found.below.threshold is not None
    assert found.above.threshold is None
    assert found.above.given_up < 0.01
    assert found.given_up == found.below.given_up


def test_the_share_given_up_is_of_the_pairs_that_were_fitted_to() -> None:
    early = [Preview(0.9, kept=True)] * 598 + [Preview(0.1, kept=False)] * 1202
    later = [Preview(0.9, kept=True)] * 200
    for seen in ([*early[598:], *early[:598]], [*early[598:], *early[:598], *later]):
        side = calibrate(seen, 0.005).below
        assert (side.fitted, side.given_up) == (598, 1202 / 1800)


def test_thresholds_that_cross_put_a_job_into_shadow_mode() -> None:
    below, above = Side(0.6, kept=100, fitted=96), Side(0.4, kept=100, fitted=96)
    assert with_thresholds(ON, Calibration(100, 100, 3, below, above)).generate.abort.mode == "shadow"
    assert with_thresholds(ON, Calibration(100, 100, 3, above, below)).generate.abort.mode == "on"


def test_a_cosine_that_rounding_carried_beyond_one_is_recorded_as_one() -> None:
    some = [Preview(1.0000001 if kept else 0.0, kept) for kept in (number % 2 == 0 for number in range(200))]
    found = calibrate(some, LOSS)
    assert found.below.threshold == 1.0000001
    abort = with_thresholds(ON, found).generate.abort
    assert (abort.mode, abort.below) == ("on", 1.0)


def test_too_few_kept_pairs_give_no_threshold() -> None:
    some = first(597, pairs(random.Random(7)))
    found = calibrate(some, 0.005)
    assert (found.below.threshold, found.above.threshold) == (None, None)
    assert (found.kept, found.needed, found.pairs) == (597, 598, len(some))
    assert calibrate([*some, Preview(1.0, kept=True)], 0.005).below.threshold is not None


def test_threshold_moves_only_when_kept_pairs_have_doubled() -> None:
    source = pairs(random.Random(8))
    seen, thresholds = first(598, source), []
    for _ in range(4):
        thresholds.append(calibrate(seen, 0.005).below.threshold)
        seen += first(200, source)
    assert thresholds[0] == thresholds[1] == thresholds[2] != thresholds[3]  # of 598, 798, 998 and 1198


def drifted(draw: random.Random, before: int, shift: float, most: int) -> int | None:
    """How many kept pairs after a shift it took until the threshold was withdrawn, of at most so many."""
    seen = first(before, pairs(draw))
    assert calibrate(seen, LOSS).below.threshold is not None
    after = first(most, pairs(draw, shift))
    for count in range(50, len(after) + 1, 50):
        found = calibrate([*seen, *after[:count]], LOSS).below
        if found.drifts:
            assert found.kept < before  # what came before the drift is forgotten
            return sum(each.kept for each in after[:count])
    return None


def test_drift_withdraws_the_threshold() -> None:
    draw = random.Random(9)
    found = [drifted(draw, 500, 1.0, 1500) for _ in range(20)]
    assert None not in found


def test_a_withdrawn_threshold_comes_back_with_enough_new_pairs() -> None:
    draw = random.Random(10)
    seen = first(500, pairs(draw)) + first(300, pairs(draw, 1.0))
    assert calibrate(seen, LOSS).below.drifts == 1
    again = calibrate(seen + first(600, pairs(draw, 1.0)), LOSS).below
    assert again.threshold is not None
    assert lost_under(again.threshold, 1.0) < 2 * LOSS


@pytest.mark.parametrize(("lost", "drifts"), [(5, 0), (6, 1)])
def test_drift_that_begins_late_is_seen_as_soon(lost: int, drifts: int) -> None:
    usual = [Preview(0.9, kept=True)] * (
        598 + 500
    )  # of which the last 500 are watched; waiting must not dull the watch
    beyond = [Preview(0.1, kept=True)] * lost
    assert calibrate([*usual, *beyond], 0.005).below.drifts == drifts


def test_without_drift_no_threshold_is_withdrawn() -> None:
    draw, runs, kept = random.Random(11), 20, 2500
    alarms = sum(calibrate(first(kept, pairs(draw)), LOSS).below.drifts for _ in range(runs))
    assert alarms <= at_most(kept / FALSE_ALARM_EVERY, runs)
