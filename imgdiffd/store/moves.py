"""The only statements that change a state; each allows only the legal moves of `imgdiffd.job`."""

import sqlite3
from collections.abc import Collection, Sequence
from functools import cache

from imgdiffd.job import TERMINAL_JOB_STATES, ItemState, JobState, item_sources, job_sources
from imgdiffd.pipeline import Stage


def _states(states: Collection[str]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states)) or "NULL"


# A DONE job may still have items in pipelines that do not hold it open; those of a READING one take results over.
MAY_MOVE = f"jobs.state IN ({_states({JobState.READING, JobState.ACTIVE, JobState.PAUSED, JobState.DONE})})"
MAY_RUN = f"jobs.state IN ({_states({JobState.ACTIVE, JobState.DONE})})"


@cache
def _sources(target: ItemState) -> str:
    return _states(item_sources(target))


def move_job(
    connection: sqlite3.Connection,
    job: int,
    target: JobState,
    now: float,
    *,
    among: Collection[JobState] = frozenset(JobState),
    error: str = "",
) -> bool:
    """Move the job to `target` if that is legal and its state is in `among`. Returns whether it moved."""
    # Which jobs were there before one was given up is read from these times: a clock set back must not turn them round.
    begun = "created_at" if target is JobState.DONE else "(SELECT max(created_at) FROM jobs)"
    finished_at = f"max(:now, {begun})" if target in TERMINAL_JOB_STATES else "NULL"
    cursor = connection.execute(
        f"UPDATE jobs SET state = :target, finished_at = {finished_at}, error = :error"
        f" WHERE id = :job AND state IN ({_states(job_sources(target) & frozenset(among))})",
        {"target": target, "now": now, "error": error, "job": job},
    )
    return cursor.rowcount > 0


def move_items(
    connection: sqlite3.Connection,
    target: ItemState,
    now: float,
    where: str,
    values: Sequence[object],
    changes: str = "",
    changed: Sequence[object] = (),
) -> int:
    """Move the items that match `where` to `target`, if legal; `changes` sets more columns. Returns how many moved."""
    cursor = connection.execute(
        f"UPDATE items SET state = ?, updated_at = ?{', ' if changes else ''}{changes}"
        f" WHERE state IN ({_sources(target)}) AND {where}",
        (target, now, *changed, *values),
    )
    return cursor.rowcount


def pass_on(
    connection: sqlite3.Connection, stage: Stage, attempt: int, now: float, where: str, values: Sequence[object]
) -> int:
    """Move the READY items that match `where` to `stage` and reset their crashes. Returns how many moved.

    It does not set the state, so SQLite leaves unchanged indexes alone, which halves the cost of a result.
    """
    cursor = connection.execute(
        f"UPDATE items SET updated_at = ?, stage = ?, attempt = ?, crashes = 0 WHERE +state = 'ready' AND {where}",
        (now, stage, attempt, *values),
    )
    return cursor.rowcount
