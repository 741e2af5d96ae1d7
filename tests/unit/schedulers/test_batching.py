"""The laws of choosing a batch from one's own deque."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.pipeline import DEPTH, STAGES, Stage
from imgdiffd.schedulers.batching import BatchChoice, BatchOption, Patience, choose_batch, find_slot
from imgdiffd.schedulers.reasons import BatchCode, SlotCode

PATIENCE = Patience(busy=20.0, idle=0.5, max_passes=128)


def lane(stage: Stage, count: int = 4, **changes: object) -> BatchOption:
    base = BatchOption(
        stage=stage,
        group="g",
        count=count,
        priority=0,
        since_s=0.0,
        passes=0,
        limit=STAGES[stage].batch_limit,
        batch_s=1.0,
        fillable=True,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def decide(*lanes: BatchOption, now_s: float = 0.0, idle: bool = True, hungry: bool = False) -> BatchChoice:
    return choose_batch(lanes, now_s=now_s, idle=idle, hungry=hungry, patience=PATIENCE)


def choose(*lanes: BatchOption, now_s: float = 0.0, idle: bool = True, hungry: bool = False) -> int | None:
    return decide(*lanes, now_s=now_s, idle=idle, hungry=hungry).index


def test_owner_takes_the_most_downstream_full_batch() -> None:
    assert choose(lane(Stage.REWRITE, 64), lane(Stage.DESCRIBE), lane(Stage.GENERATE)) == 1


def test_higher_priority_goes_before_further_downstream() -> None:
    assert choose(lane(Stage.DESCRIBE), lane(Stage.GENERATE, priority=1)) == 1


def test_work_that_feeds_starving_devices_goes_first() -> None:
    assert choose(lane(Stage.REWRITE, 64, feeds=True), lane(Stage.DESCRIBE)) == 0
    assert choose(lane(Stage.REWRITE, 64, feeds=True), lane(Stage.DESCRIBE, priority=1)) == 1


def test_among_equals_the_oldest_goes_first() -> None:
    assert choose(lane(Stage.DESCRIBE, since_s=2.0), lane(Stage.DESCRIBE, since_s=1.0, group="h"), now_s=3.0) == 1


def test_batch_is_no_larger_than_the_limit_of_the_device() -> None:
    assert lane(Stage.DESCRIBE, 9).size == 4
    assert lane(Stage.DESCRIBE, 9, limit=2).size == 2


def test_a_small_batch_is_held_while_it_can_still_fill() -> None:
    assert choose(lane(Stage.DESCRIBE, 1), lane(Stage.GENERATE, 4), now_s=19.9) == 1


def test_a_small_batch_that_cannot_fill_runs_at_once() -> None:
    assert choose(lane(Stage.DESCRIBE, 1, fillable=False), lane(Stage.GENERATE, 4)) == 0


def test_small_batch_is_held_no_longer_than_its_patience() -> None:
    held = decide(lane(Stage.DESCRIBE, 1), now_s=5.0)
    assert (held.index, held.until_s) == (None, 20.0)
    assert choose(lane(Stage.DESCRIBE, 1), lane(Stage.GENERATE, 4), now_s=20.0) == 0


def test_an_idle_device_holds_a_small_batch_only_briefly() -> None:
    assert choose(lane(Stage.DESCRIBE, 1), now_s=0.4, hungry=True) is None
    assert choose(lane(Stage.DESCRIBE, 1), now_s=0.5, hungry=True) == 0


def test_lane_passed_over_too_often_comes_before_everything() -> None:
    assert choose(lane(Stage.RENDER, 8, priority=9), lane(Stage.REWRITE, 1, passes=128)) == 1
    assert choose(lane(Stage.RENDER, 8, priority=9), lane(Stage.REWRITE, 64, passes=127)) == 0


def test_the_lane_passed_over_most_often_comes_first() -> None:
    urgent = [lane(Stage.RENDER, 8, priority=9, passes=128 + number) for number in range(5)]
    assert choose(*urgent, lane(Stage.REWRITE, 1, passes=133)) == 5


def test_part_of_a_failed_batch_waits_to_run_alone() -> None:
    suspect = lane(Stage.DESCRIBE, 2, suspect=True)
    assert choose(suspect, lane(Stage.GENERATE), idle=False) is None
    assert choose(suspect, lane(Stage.GENERATE), idle=True) == 0


def test_part_of_a_failed_batch_runs_as_it_is() -> None:
    assert lane(Stage.DESCRIBE, 3, limit=2, suspect=True).size == 3


def test_of_the_last_tasks_the_owner_takes_its_share() -> None:
    choice = decide(lane(Stage.GENERATE, 6, fillable=False, share=2))
    assert (choice.index, choice.reason.code) == (0, BatchCode.SHARED)
    assert "generate x2" in choice.reason.text
    assert lane(Stage.GENERATE, 20, share=9).size == STAGES[Stage.GENERATE].batch_limit


def test_every_choice_gives_its_reason() -> None:
    assert decide().reason.code is BatchCode.NOTHING_QUEUED
    assert decide(lane(Stage.DESCRIBE, 1)).reason.code is BatchCode.HOLDING
    assert decide(lane(Stage.DESCRIBE, 1, fillable=False)).reason.code is BatchCode.DUE
    assert decide(lane(Stage.DESCRIBE)).reason.code is BatchCode.FULL
    assert decide(lane(Stage.DESCRIBE, passes=128)).reason.code is BatchCode.PASSED_OVER
    assert decide(lane(Stage.DESCRIBE, 2, suspect=True)).reason.code is BatchCode.RETRY
    assert decide(lane(Stage.DESCRIBE, 2, suspect=True), idle=False).reason.code is BatchCode.NOT_ALONE


CANDIDATES = st.builds(
    lane,
    st.sampled_from(Stage),
    st.integers(1, 100),
    since_s=st.floats(0, 100),
    passes=st.integers(0, 200),
    priority=st.integers(-2, 2),
    batch_s=st.floats(0.001, 50),
    fillable=st.booleans(),
)


@given(st.lists(CANDIDATES, min_size=1, max_size=12), st.floats(100, 200), st.booleans())
def test_a_batch_is_taken_or_the_next_look_has_a_time(lanes: list[BatchOption], now_s: float, hungry: bool) -> None:
    choice = decide(*lanes, now_s=now_s, hungry=hungry)
    if choice.index is None:
        assert choice.until_s is not None
        assert choice.until_s > now_s
        assert choose(*lanes, now_s=choice.until_s, hungry=hungry) is not None
    else:
        taken = lanes[choice.index]
        better = [one for one in lanes if one.count >= one.limit and one.passes < 128 and taken.passes < 128]
        assert all((one.priority, DEPTH[one.stage]) <= (taken.priority, DEPTH[taken.stage]) for one in better)


def slot(**changes: object) -> tuple[SlotCode, float | None]:
    usual = {
        "now_s": 10.0,
        "in_flight": 1,
        "max_in_flight": 2,
        "suspect_runs": False,
        "head_in_s": 0.5,
        "rest_s": 0.0,
        "ahead_s": 1.0,
    }
    found = find_slot(**{**usual, **changes})  # type: ignore[arg-type]
    assert found.free == (found.reason.code in {SlotCode.IDLE, SlotCode.AHEAD})
    return SlotCode(found.reason.code), found.until_s


def test_second_batch_is_sent_shortly_before_the_first_ends() -> None:
    assert slot() == (SlotCode.AHEAD, None)
    assert slot(head_in_s=4.0) == (SlotCode.BUSY, 13.0)


def test_no_timer_where_only_a_batchs_end_makes_room() -> None:
    assert slot(max_in_flight=3, head_in_s=0.0, rest_s=4.0) == (SlotCode.BUSY, None)
    assert slot(max_in_flight=3, head_in_s=2.0, rest_s=4.0) == (SlotCode.BUSY, None)
    assert slot(max_in_flight=3, head_in_s=2.0, rest_s=0.5) == (SlotCode.BUSY, 11.5)


def test_no_more_batches_are_in_flight_than_allowed() -> None:
    assert slot(in_flight=2) == (SlotCode.BOUND, None)
    assert slot(max_in_flight=1) == (SlotCode.BOUND, None)


def test_nothing_is_sent_beside_a_part_of_a_failed_batch() -> None:
    assert slot(suspect_runs=True) == (SlotCode.RETRY, None)


def test_idle_device_always_has_room() -> None:
    assert slot(in_flight=0, head_in_s=99.0) == (SlotCode.IDLE, None)
