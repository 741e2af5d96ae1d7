"""The laws of taking work from another device."""

from dataclasses import replace

from imgdiffd.pipeline import STAGES, Stage
from imgdiffd.schedulers.batching import BatchOption, Patience
from imgdiffd.schedulers.reasons import TheftCode
from imgdiffd.schedulers.stealing import LEAVING_S, Theft, Victim, choose_theft, leaving_price_s


def lane(
    stage: Stage = Stage.GENERATE,
    count: int = 8,
    *,
    since_s: float = 0.0,
    batch_s: float = 4.0,
    fillable: bool = False,
    priority: int = 0,
) -> BatchOption:
    limit = STAGES[stage].batch_limit
    return BatchOption(stage, "g", count, priority, since_s, 0, limit, batch_s, fillable)


def victim(
    device: str, *lanes: BatchOption, lane_s: tuple[float, ...], free_in_s: float = 10.0, backlog_s: float | None = None
) -> Victim:
    total_s = free_in_s + sum(lane_s) if backlog_s is None else backlog_s
    return Victim(device, lanes, lane_s, free_in_s, total_s)


def steal(*victims: Victim, own_backlog_s: float = 0.0, now_s: float = 0.0) -> Theft:
    return choose_theft(victims, now_s=now_s, own_backlog_s=own_backlog_s, patience=Patience())


def test_a_thief_takes_from_the_most_queued_seconds() -> None:
    many_cheap = victim("a", lane(Stage.REWRITE, 64), lane_s=(1.6,))
    few_dear = victim("b", lane(Stage.GENERATE, 4), lane_s=(31.0,))
    assert steal(many_cheap, few_dear).device == "b"


def test_seconds_that_the_thief_cannot_run_do_not_make_a_victim() -> None:
    loaded_but_not_for_us = victim("a", lane(Stage.COMPARE, 32), lane_s=(0.1,), backlog_s=900.0)
    assert steal(loaded_but_not_for_us, victim("b", lane(), lane_s=(8.0,))).device == "b"


def test_thief_takes_the_oldest_batch_of_its_victim() -> None:
    theft = steal(victim("a", lane(Stage.LOCATE, since_s=5.0), lane(since_s=1.0), lane_s=(2.0, 60.0)), now_s=9.0)
    assert (theft.device, theft.lane, theft.size) == ("a", 1, 4)


def test_a_thief_takes_the_most_urgent_first() -> None:
    loaded = victim("a", lane(count=64, priority=-1), lane_s=(500.0,))
    urgent = victim("b", lane(since_s=5.0), lane(since_s=1.0, priority=-1), lane_s=(8.0, 8.0))
    assert (steal(loaded, urgent, now_s=9.0).device, steal(loaded, urgent, now_s=9.0).lane) == ("b", 0)


def test_nothing_is_stolen_without_work_for_the_thiefs_models() -> None:
    theft = steal(victim("a", lane_s=()))
    assert (theft.device, theft.reason.code) == (None, TheftCode.NO_VICTIM)


def test_leaving_costs_only_where_images_are_read_again() -> None:
    assert leaving_price_s(Stage.GENERATE, 4) == 0.0
    assert leaving_price_s(Stage.COMPARE, 4) == 4 * LEAVING_S


def test_work_stays_where_it_ends_sooner_despite_the_queue() -> None:
    soon = victim("a", lane(Stage.RENDER, 8, batch_s=0.01), lane_s=(0.01,), free_in_s=0.1)
    assert (steal(soon).device, steal(soon).reason.code) == (None, TheftCode.DOES_NOT_PAY)


def test_a_busy_thief_steals_only_what_it_ends_sooner() -> None:
    one = victim("a", lane(batch_s=4.0), lane_s=(8.0,), free_in_s=10.0)
    assert [steal(one, own_backlog_s=own_s).size for own_s in (13.9, 14.1, 16.1, 17.1)] == [4, 2, 1, 0]


def test_a_slow_thief_takes_only_what_it_ends_sooner() -> None:
    last = victim("a", lane(count=8, batch_s=50.0), lane_s=(30.0,), free_in_s=1.0)
    assert steal(last).size == 2
    assert steal(victim("a", lane(count=4, batch_s=50.0), lane_s=(10.0,), free_in_s=1.0)).device is None


def test_of_the_last_of_their_kind_the_thief_takes_its_share() -> None:
    last = replace(lane(count=4, batch_s=4.0), share=1)
    assert steal(victim("a", last, lane_s=(4.0,), free_in_s=9.0)).size == 1
    assert steal(victim("a", replace(last, share=0), lane_s=(4.0,), free_in_s=9.0)).device is None


def test_a_small_held_batch_is_not_stolen_at_once() -> None:
    held = victim("a", lane(Stage.DESCRIBE, 1, batch_s=2.0, fillable=True), lane_s=(2.0,))
    early, late = steal(held, now_s=0.5), steal(held, now_s=1.0)
    assert (early.until_s, early.reason.code) == (1.0, TheftCode.NOT_DUE)
    assert (late.device, late.reason.code) == ("a", TheftCode.STOLEN)


def test_a_last_batch_is_shared_if_its_owner_is_soon_free() -> None:
    assert steal(victim("a", lane(count=4, batch_s=4.0), lane_s=(4.0,), free_in_s=1.0)).size == 2
    assert steal(victim("a", lane(count=4, batch_s=4.0), lane_s=(4.0,), free_in_s=9.0)).size == 4


def test_the_second_victim_is_taken_if_the_first_is_not_due() -> None:
    held = victim("a", lane(Stage.DESCRIBE, 1, batch_s=50.0, fillable=True), lane_s=(50.0,))
    assert steal(held, victim("b", lane(), lane_s=(8.0,))).device == "b"
