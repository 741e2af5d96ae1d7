"""The law of letting work in."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.pipeline import Stage, Task
from imgdiffd.schedulers.admission import Demand, Entrance, admit, admit_in_order, let_in

USUAL = Demand(open=0, queued=0, max_open=256, exhausted=False, asking=False, held_back="")


def test_everything_that_there_is_room_for_is_asked_for() -> None:
    assert admit(USUAL).room == 256
    assert admit(replace(USUAL, open=100, queued=50)).room == 156


def test_open_work_is_bounded() -> None:
    full = admit(replace(USUAL, open=256, queued=200))
    assert full.room == 0
    assert "256 tasks are open" in full.reason


def test_little_room_is_not_worth_a_query_while_work_is_queued() -> None:
    assert admit(replace(USUAL, open=230, queued=10)).room == 0
    assert admit(replace(USUAL, open=230, queued=0)).room == 26


def test_nothing_is_asked_twice_at_once_or_of_an_empty_store_or_while_held_back() -> None:
    assert admit(replace(USUAL, asking=True)).room == 0
    assert admit(replace(USUAL, exhausted=True)).room == 0
    held = admit(replace(USUAL, held_back="disk"))
    assert (held.room, held.reason) == (0, "disk")


def test_open_work_is_bounded_in_bytes() -> None:
    by_bytes = replace(USUAL, open=10, queued=5, max_bytes=8000)
    assert admit(replace(by_bytes, open_bytes=7000)).room == 246
    for open_bytes in (7001, 8000, 9000):
        refused = admit(replace(by_bytes, open_bytes=open_bytes))
        assert refused.room == 0
        assert "GB" in refused.reason
    assert admit(replace(by_bytes, open_bytes=7001, queued=0)).room == 246
    assert admit(replace(by_bytes, open_bytes=1, full=True)).room == 0
    assert admit(replace(by_bytes, open_bytes=0, full=True)).room == 246


def test_background_work_is_asked_for_only_while_there_is_nothing_else_to_ask_for() -> None:
    def room(usual: Demand, background_open: int = 0, background_exhausted: bool = False) -> int:
        return admit_in_order(usual, background_open=background_open, background_exhausted=background_exhausted).room

    assert room(USUAL) == 256
    assert room(replace(USUAL, open=256, queued=9)) == 0
    assert room(replace(USUAL, exhausted=True)) == 32
    assert room(replace(USUAL, exhausted=True), background_open=32) == 0
    assert room(replace(USUAL, exhausted=True), background_exhausted=True) == 0


def task(item: int, open_bytes: int = 0, priority: int = 0) -> Task:
    return Task(item, Stage.REWRITE, 0, "g", priority, open_bytes=open_bytes)


def enter(*tasks: Task, open_bytes: int = 0, background_room: int = 9) -> Entrance:
    return let_in(tasks, background_room=background_room, open_bytes=open_bytes, max_bytes=100)


def test_no_task_jumps_ahead_of_one_that_waits_for_bytes() -> None:
    entrance = enter(task(1, 40), task(2, 70), task(3, 10))
    assert ([one.item for one in entrance.tasks], entrance.cut) == ([1], True)


def test_task_larger_than_the_bound_is_let_in_alone() -> None:
    assert enter(task(1, 500), open_bytes=1).tasks == ()
    assert enter(task(1, 500), task(2, 1)).tasks == (task(1, 500),)
    assert enter(task(1), task(2, 500)).tasks == (task(1), task(2, 500))


def test_background_work_is_kept_to_its_own_room() -> None:
    entrance = enter(task(1), task(2, priority=-1), task(3, priority=-1), background_room=1)
    assert ([one.item for one in entrance.tasks], entrance.crowded) == ([1, 2], True)


@given(
    st.builds(
        Demand,
        open=st.integers(0, 300),
        queued=st.integers(0, 300),
        max_open=st.integers(1, 300),
        exhausted=st.booleans(),
        asking=st.booleans(),
        held_back=st.sampled_from(["", "paused"]),
    )
)
def test_no_admission_exceeds_the_bound_and_each_says_why(intake: Demand) -> None:
    decision = admit(intake)
    assert decision.reason
    assert decision.room == 0 or intake.open + decision.room <= intake.max_open


@given(st.integers(1, 300), st.integers(0, 300))
def test_dry_queues_with_room_are_always_refilled(max_open: int, running: int) -> None:
    decision = admit(replace(USUAL, max_open=max_open, open=running))
    assert (decision.room > 0) == (running < max_open)
