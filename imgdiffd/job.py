"""What a job brings, the states of jobs and items, and the moves between them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """A caption in NFC with single spaces. `line` is its line or, in JSON and Parquet, its record's number, from 1.

    `source_id` is the record's id in the file, or "".
    """

    text: str
    source_id: str
    line: int


@dataclass(frozen=True, slots=True)
class CaptionProblem:
    """A record without a usable caption: `code` is the reason for programs, `message` the one for people."""

    line: int
    code: str
    message: str


class JobState(StrEnum):
    """A job is one caption file (or one submission) together with its profile."""

    READING = "reading"  # its captions are being inserted; after a restart its file is read again
    ACTIVE = "active"  # the scheduler may take its items
    PAUSED = "paused"  # the scheduler takes none of its items; survives a restart
    DONE = "done"  # no item holds it open any more
    CANCELLED = "cancelled"  # a person ended it; items not yet done are cancelled too
    FAILED = "failed"  # the file could not be read; `error` says why


class ItemState(StrEnum):
    """An item is a caption, or the object removal of its pair, on its way through the stages."""

    READY = "ready"  # waits for its `stage` or is being worked on there
    SAMPLED = "sampled"  # terminal: at least one sample came out
    REJECTED = "rejected"  # terminal: a filter said no; `reason` is its code
    FAILED = "failed"  # terminal: it broke its stage repeatedly; `reason` and `detail` say how
    CANCELLED = "cancelled"  # terminal: its job was cancelled


TERMINAL_ITEM_STATES = frozenset({ItemState.SAMPLED, ItemState.REJECTED, ItemState.FAILED, ItemState.CANCELLED})
TERMINAL_JOB_STATES = frozenset({JobState.DONE, JobState.CANCELLED, JobState.FAILED})

JobChoice = Literal["all", "open", "ended", "reading", "active", "paused", "done", "cancelled", "failed"]

JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.READING: frozenset({JobState.ACTIVE, JobState.DONE, JobState.FAILED, JobState.CANCELLED}),
    JobState.ACTIVE: frozenset({JobState.PAUSED, JobState.DONE, JobState.CANCELLED}),
    JobState.PAUSED: frozenset({JobState.ACTIVE, JobState.CANCELLED}),
    JobState.DONE: frozenset({JobState.ACTIVE, JobState.CANCELLED}),  # its failed items are retried; it is deleted
    JobState.CANCELLED: frozenset(),
    JobState.FAILED: frozenset(),
}

ITEM_MOVES: dict[ItemState, frozenset[ItemState]] = {
    ItemState.READY: frozenset({ItemState.READY, *TERMINAL_ITEM_STATES}),
    ItemState.SAMPLED: frozenset(),
    ItemState.REJECTED: frozenset(),
    ItemState.FAILED: frozenset({ItemState.READY}),  # a person asked to retry it
    ItemState.CANCELLED: frozenset(),
}


def chosen_states(choice: JobChoice) -> frozenset[JobState]:
    """The states that `choice` stands for."""
    match choice:
        case "all":
            return frozenset(JobState)
        case "open":
            return frozenset(JobState) - TERMINAL_JOB_STATES
        case "ended":
            return TERMINAL_JOB_STATES
        case _:
            return frozenset({JobState(choice)})


def job_sources(target: JobState) -> frozenset[JobState]:
    """The states from which a job may move to `target`."""
    return frozenset(state for state, targets in JOB_MOVES.items() if target in targets)


def item_sources(target: ItemState) -> frozenset[ItemState]:
    """The states from which an item may move to `target`."""
    return frozenset(state for state, targets in ITEM_MOVES.items() if target in targets)
