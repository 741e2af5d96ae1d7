"""The law of letting work in."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.schedulers.admission import Intake, admit

USUAL = Intake(open=0, queued=0, max_open=256, exhausted=False, asking=False, held_back="")


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


@given(
    st.builds(
        Intake,
        open=st.integers(0, 300),
        queued=st.integers(0, 300),
        max_open=st.integers(1, 300),
        exhausted=st.booleans(),
        asking=st.booleans(),
        held_back=st.sampled_from(["", "paused"]),
    )
)
def test_no_admission_exceeds_the_bound_and_each_says_why(intake: Intake) -> None:
    decision = admit(intake)
    assert decision.reason
    assert decision.room == 0 or intake.open + decision.room <= intake.max_open


@given(st.integers(1, 300), st.integers(0, 300))
def test_dry_queues_with_room_are_always_refilled(max_open: int, running: int) -> None:
    decision = admit(replace(USUAL, max_open=max_open, open=running))
    assert (decision.room > 0) == (running < max_open)
