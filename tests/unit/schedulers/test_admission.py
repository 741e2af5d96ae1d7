"""The laws of letting work in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.pipeline import Stage, Task
from imgdiffd.schedulers.admission import Entrance, OpenWork, Refills, background_bound, let_in
from imgdiffd.schedulers.reasons import AdmissionCode

POLL_S = 5.0
NOTHING = OpenWork()


def task(item: int, open_bytes: int = 0, priority: int = 0) -> Task:
    return Task(item, Stage.REWRITE, 0, "g", priority, open_bytes=open_bytes)


def tasks(count: int, priority: int = 0) -> list[Task]:
    return [task(item, priority=priority) for item in range(count)]


def refills(max_open: int = 256, max_bytes: int | None = None) -> Refills:
    return Refills(max_open=max_open, max_bytes=max_bytes, poll_s=POLL_S)


def after_a_refill(found: list[Task], *, max_open: int = 256, max_bytes: int | None = None) -> Refills:
    """Refills that at 0 s asked for all that it has room for, and was brought what was `found`."""
    asking = refills(max_open, max_bytes)
    asking.asked(max_open, 0.0)
    asking.answered(found, NOTHING)
    return asking


def verdict(asking: Refills, work: OpenWork = NOTHING, *, now_s: float = 1.0, held_back: str = "") -> tuple[int, str]:
    admission = asking.decide(work, now_s=now_s, held_back=held_back)
    return admission.room, admission.reason.code


def test_everything_that_there_is_room_for_is_asked_for() -> None:
    assert verdict(refills()) == (256, AdmissionCode.ROOM)
    assert verdict(refills(), OpenWork(usual=100, queued=50)) == (156, AdmissionCode.ROOM)


def test_open_work_is_bounded() -> None:
    full = refills().decide(OpenWork(usual=256, queued=200), now_s=0.0)
    assert (full.room, full.reason.code) == (0, AdmissionCode.BOUND)
    assert "256 tasks are open" in full.reason.text


def test_little_room_is_not_worth_a_query_while_work_is_queued() -> None:
    assert verdict(refills(), OpenWork(usual=230, queued=10)) == (0, AdmissionCode.LITTLE_ROOM)
    assert verdict(refills(), OpenWork(usual=230)) == (26, AdmissionCode.ROOM)


def test_nothing_is_asked_for_while_sending_is_held_back() -> None:
    held = refills().decide(NOTHING, now_s=0.0, held_back="disk")
    assert (held.room, held.reason.code, held.reason.text) == (0, AdmissionCode.HELD_BACK, "disk")


def test_nothing_is_asked_twice_at_once() -> None:
    asking = refills()
    asking.asked(256, 0.0)
    assert verdict(asking) == (0, AdmissionCode.ASKING)
    asking.answered(tasks(256), NOTHING)
    assert verdict(asking) == (256, AdmissionCode.ROOM)


def test_empty_store_is_asked_again_at_the_poll_or_when_woken() -> None:
    asking = after_a_refill(tasks(3))
    assert verdict(asking, now_s=POLL_S - 0.1) == (0, AdmissionCode.EXHAUSTED)
    assert verdict(asking, now_s=POLL_S) == (256, AdmissionCode.ROOM)
    asking.wake()
    assert verdict(asking) == (256, AdmissionCode.ROOM)


def test_refill_that_was_woken_meanwhile_has_not_seen_all() -> None:
    asking = refills()
    asking.asked(256, 0.0)
    asking.wake()
    asking.answered([], NOTHING)
    assert verdict(asking) == (256, AdmissionCode.ROOM)
    assert not asking.is_dry(1.0)


def test_item_forgotten_during_a_refill_stays_out_of_it_only() -> None:
    asking = refills()
    asking.forget([0])  # before the refill looks: it will not bring it
    asking.asked(256, 0.0)
    asking.forget([1, 2])
    assert asking.answered(tasks(4), NOTHING) == (task(0), task(3))
    asking.asked(256, 1.0)
    assert asking.answered(tasks(4), NOTHING) == tuple(tasks(4))


def test_admission_is_dry_once_a_refill_found_no_more_of_a_class() -> None:
    asking = refills()
    assert not asking.is_dry(0.0), "nothing was asked for yet"
    asking.asked(256, 0.0)
    assert not asking.is_dry(1.0), "the refill is under way"
    asking.answered(tasks(3), NOTHING)
    assert asking.is_dry(1.0)
    assert not asking.is_dry(POLL_S), "new tasks may wait"
    asking.wake()
    assert not asking.is_dry(1.0)


def test_admission_is_not_dry_while_a_refill_runs_or_room_lacked() -> None:
    asking = after_a_refill(tasks(3))
    asking.asked(256, POLL_S)
    assert not asking.is_dry(POLL_S + 0.1)
    assert after_a_refill(tasks(32, priority=-1)).is_dry(1.0)
    assert not after_a_refill(tasks(33, priority=-1)).is_dry(1.0)


def test_background_work_is_asked_for_last() -> None:
    usual_left = after_a_refill(tasks(256))
    assert verdict(usual_left) == (256, AdmissionCode.ROOM)
    assert verdict(usual_left, OpenWork(usual=256, queued=9)) == (0, AdmissionCode.BOUND)
    background_left = after_a_refill([*tasks(10), *tasks(246, priority=-1)])
    assert verdict(background_left) == (32, AdmissionCode.ROOM)
    assert verdict(background_left, OpenWork(background=32)) == (0, AdmissionCode.BOUND)
    assert verdict(background_left, now_s=POLL_S) == (256, AdmissionCode.ROOM)


def test_open_work_is_bounded_in_bytes() -> None:
    def asked(open_bytes: int, queued: int = 5) -> tuple[int, str]:
        return verdict(refills(max_bytes=8000), OpenWork(usual=10, queued=queued, open_bytes=open_bytes))

    assert asked(7000) == (246, AdmissionCode.ROOM)
    assert [asked(open_bytes) for open_bytes in (7001, 8000, 9000)] == [(0, AdmissionCode.BYTES)] * 3
    assert asked(7001, queued=0) == (246, AdmissionCode.ROOM)


def test_work_too_large_waits_until_something_ended() -> None:
    open_work = OpenWork(usual=1, open_bytes=1)
    for changed in (Refills.room_made, Refills.wake, lambda asking: asking.forget([7])):
        asking = refills(max_bytes=8000)
        asking.asked(255, 0.0)
        assert asking.answered([task(1, 8000)], open_work) == ()
        assert verdict(asking, open_work) == (0, AdmissionCode.BYTES)
        assert verdict(asking, OpenWork(usual=1)) == (255, AdmissionCode.ROOM), "nothing that is open takes any"
        changed(asking)
        assert verdict(asking, open_work) == (255, AdmissionCode.ROOM)


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
    assert ([one.item for one in entrance.tasks], entrance.crowded, entrance.cut) == ([1, 2], True, False)


@given(
    st.integers(1, 1000),
    st.builds(OpenWork, *(st.integers(0, 1000) for _ in range(4))),
    st.none() | st.integers(1, 2000),
    st.none() | st.lists(st.sampled_from([0, -1]), max_size=40),
    st.sampled_from(["", "disk"]),
)
def test_no_answer_exceeds_its_bound_and_each_has_a_reason(
    max_open: int, work: OpenWork, max_bytes: int | None, found: list[int] | None, held_back: str
) -> None:
    asking = refills(max_open, max_bytes)
    if found is not None:
        asking.asked(max_open, 0.0)
        asking.answered([task(item, priority=priority) for item, priority in enumerate(found[:max_open])], work)
    admission = asking.decide(work, now_s=1.0, held_back=held_back)
    assert admission.reason.text
    assert (admission.room > 0) == (admission.reason.code is AdmissionCode.ROOM)
    background = admission.room <= background_bound(max_open) - work.background
    assert admission.room <= max(0, max_open - work.usual) or background


@given(st.integers(1, 300), st.integers(0, 300))
def test_dry_queues_with_room_are_always_refilled(max_open: int, running: int) -> None:
    room, _ = verdict(refills(max_open), OpenWork(usual=running))
    assert (room > 0) == (running < max_open)


@pytest.mark.parametrize("max_open", [1, 7, 8, 256])
def test_background_work_always_has_room_for_one(max_open: int) -> None:
    assert background_bound(max_open) == max(1, max_open // 8)


def test_background_work_announced_is_asked_for_at_once() -> None:
    """The work of captions ends in an item of another pipeline; a device must not idle until the next poll."""
    asking = after_a_refill([])
    assert verdict(asking) == (0, AdmissionCode.EXHAUSTED)
    asking.wake_background()
    assert not asking.is_dry(1.0)
    assert verdict(asking) == (32, AdmissionCode.ROOM)
    assert verdict(asking, OpenWork(background=30, queued=9)) == (0, AdmissionCode.LITTLE_ROOM)


def test_background_work_announced_during_a_refill_is_asked_for() -> None:
    asking = refills()
    asking.asked(256, 0.0)
    asking.wake_background()
    asking.answered([], NOTHING)
    assert not asking.is_dry(1.0)
    assert verdict(asking) == (256, AdmissionCode.ROOM)
