"""The laws of `imgdiffd.job`: which moves between states are legal."""

from typing import get_args

import pytest

from imgdiffd.job import (
    ITEM_MOVES,
    JOB_MOVES,
    TERMINAL_ITEM_STATES,
    TERMINAL_JOB_STATES,
    ItemState,
    JobChoice,
    JobState,
    chosen_states,
    item_sources,
    job_sources,
)


def test_every_state_has_its_row() -> None:
    assert set(JOB_MOVES) == set(JobState)
    assert set(ITEM_MOVES) == set(ItemState)


@pytest.mark.parametrize("state", sorted(TERMINAL_ITEM_STATES))
def test_only_a_failed_item_leaves_a_terminal_state_by_retry(state: ItemState) -> None:
    assert ITEM_MOVES[state] == ({ItemState.READY} if state is ItemState.FAILED else frozenset())


def test_ready_item_may_end_in_every_terminal_state_or_go_on() -> None:
    assert ITEM_MOVES[ItemState.READY] == TERMINAL_ITEM_STATES | {ItemState.READY}


def test_cancelled_and_failed_jobs_stay_so() -> None:
    assert not JOB_MOVES[JobState.CANCELLED]
    assert not JOB_MOVES[JobState.FAILED]
    assert {JobState.DONE, JobState.CANCELLED, JobState.FAILED} == TERMINAL_JOB_STATES


def test_only_a_job_being_read_can_fail() -> None:
    assert job_sources(JobState.FAILED) == {JobState.READING}


def test_nothing_becomes_readable_again() -> None:
    assert job_sources(JobState.READING) == frozenset()


@pytest.mark.parametrize("state", [state for state in JobState if state not in TERMINAL_JOB_STATES])
def test_every_living_job_can_be_cancelled(state: JobState) -> None:
    assert state in job_sources(JobState.CANCELLED)


def test_sources_are_the_moves_read_backwards() -> None:
    for job_target in JobState:
        assert {s for s in JobState if job_target in JOB_MOVES[s]} == job_sources(job_target)
    for item_target in ItemState:
        assert {s for s in ItemState if item_target in ITEM_MOVES[s]} == item_sources(item_target)


def test_every_job_is_open_or_ended_and_chosen_by_its_state() -> None:
    assert set(get_args(JobChoice)) == {"all", "open", "ended", *JobState}
    assert chosen_states("open") | chosen_states("ended") == chosen_states("all") == frozenset(JobState)
    assert all(chosen_states(choice) == {choice} for choice in get_args(JobChoice)[3:])
