"""What people order of jobs: pausing, resuming, cancelling and retrying them."""

import sqlite3
from collections.abc import Sequence

from imgdiffd.errors import InputError
from imgdiffd.job import TERMINAL_JOB_STATES, ItemState, JobState
from imgdiffd.pipeline import Stage, reason_of_failure
from imgdiffd.store.jobs import HOLDING, STATES_HINT, complete_jobs, known_job
from imgdiffd.store.moves import MAY_MOVE, move_items, move_job
from imgdiffd.store.rows import JobRow

CANCEL_CHUNK = 2000  # items per operation


def _refuse_unless(moved: bool, connection: sqlite3.Connection, job: int, doing: str) -> JobRow:
    row = known_job(connection, job)
    if not moved:
        raise InputError(f"job {job}: cannot be {doing}, it is {row.state}", code="wrong_job_state", hint=STATES_HINT)
    return row


def pause(connection: sqlite3.Connection, job: int, now: float) -> JobRow:
    """Keep the job's items from being taken. Raises InputError unless it is ACTIVE."""
    return _refuse_unless(move_job(connection, job, JobState.PAUSED, now), connection, job, "paused")


def resume(connection: sqlite3.Connection, job: int, now: float) -> JobRow:
    """Let the job's items be taken again. Raises InputError unless it is PAUSED."""
    moved = move_job(connection, job, JobState.ACTIVE, now, among={JobState.PAUSED})
    _refuse_unless(moved, connection, job, "resumed")
    complete_jobs(connection, [job], now)  # its last item may have ended while it was paused
    return known_job(connection, job)


def cancel(connection: sqlite3.Connection, job: int, now: float) -> JobRow:
    """Cancel the job, but not yet its items: `cancel_leftovers` does. Raises InputError if the job has ended."""
    moved = move_job(connection, job, JobState.CANCELLED, now, among=frozenset(JobState) - TERMINAL_JOB_STATES)
    return _refuse_unless(moved, connection, job, "cancelled")


def _cancel_ready(connection: sqlite3.Connection, jobs: str, values: Sequence[object], now: float) -> int:
    """Cancel up to CANCEL_CHUNK READY items of one matching job. Returns how many; 0 when none is left.

    Works in chunks, since cancelling a million captions at once would keep other operations waiting too long.
    """
    for job, stage in connection.execute(
        "SELECT counts.job_id, counts.stage FROM jobs JOIN counts ON counts.job_id = jobs.id"
        f" WHERE {jobs} AND counts.state = 'ready' AND counts.n > 0 LIMIT 1",
        values,
    ).fetchall():
        chunk = (
            "id IN (SELECT id FROM items INDEXED BY items_ready"
            " WHERE stage = ? AND job_id = ? AND state = 'ready' LIMIT ?)"
        )
        return move_items(connection, ItemState.CANCELLED, now, chunk, (stage, job, CANCEL_CHUNK))
    return 0


def cancel_leftovers(connection: sqlite3.Connection, now: float, job: int | None = None) -> int:
    """Cancel some READY items of the job if it is CANCELLED or FAILED, or of every such job. Returns how many.

    0 when none is left. If the daemon is killed in between, its next start cancels the rest.
    """
    of_job, which = ("", ()) if job is None else ("jobs.id = ? AND ", (job,))
    values = (*which, JobState.CANCELLED, JobState.FAILED)
    return _cancel_ready(connection, f"{of_job}jobs.state IN (?, ?)", values, now)


def cancel_rest(connection: sqlite3.Connection, job: int, now: float) -> int:
    """Cancel some of the READY items that a DONE job left behind. Returns how many; 0 when none is left."""
    return _cancel_ready(connection, "jobs.id = ? AND jobs.state = ?", (job, JobState.DONE), now)


def failures(connection: sqlite3.Connection, job: int | None) -> dict[str, int]:
    """How many items `retry` would take for each reason, the most frequent first, of one job or all."""
    where, values = ("", ()) if job is None else (" AND job_id = ?", (job,))
    rows = connection.execute(
        "SELECT reason, sum(n) AS n FROM counts JOIN jobs ON jobs.id = job_id"
        f" WHERE counts.state = 'failed' AND n > 0 AND {MAY_MOVE}{where} GROUP BY reason ORDER BY n DESC, reason",
        values,
    )
    return {row["reason"]: int(row["n"]) for row in rows}


def _refuse_unknown_reason(connection: sqlite3.Connection, job: int | None, reason: str) -> None:
    found = failures(connection, job)
    if reason in found or reason in map(reason_of_failure, Stage):
        return
    listed = ", ".join(f"{each} ({count})" for each, count in found.items())
    raise InputError(
        f"{'nothing' if job is None else f'job {job}: nothing'} has failed for {reason!r}",
        code="unknown_reason",
        hint=f"what has failed, by reason: {listed or 'nothing'}",
    )


def retry(connection: sqlite3.Connection, job: int | None, reason: str | None, now: float) -> int:
    """Make FAILED items READY again in the stage where they failed, and reset their crashes. Returns how many.

    `job` and `reason` narrow the choice. A DONE job becomes ACTIVE again if one of the items holds it open. Items of
    cancelled jobs stay as they are. Raises InputError for a job that was cancelled or could not be read, and for a
    reason that there is not.
    """
    if job is not None and (row := known_job(connection, job)).state in (JobState.CANCELLED, JobState.FAILED):
        what = "its captions stay cancelled" if row.state is JobState.CANCELLED else "its file could not be read"
        raise InputError(
            f"job {job}: cannot be retried, it is {row.state}: {what}",
            code="wrong_job_state",
            hint="submit its file again",
        )
    if reason is not None:
        _refuse_unknown_reason(connection, job, reason)
    where = "state = 'failed'"
    values: list[object] = []
    if reason is not None:
        where += " AND reason = ?"
        values.append(reason)
    if job is not None:
        where += " AND job_id = ?"
        values.append(job)
    where += f" AND job_id IN (SELECT id FROM jobs WHERE {MAY_MOVE})"
    reopened = f"SELECT DISTINCT job_id FROM items WHERE {where} AND pipeline IN ({HOLDING})"
    jobs = [row[0] for row in connection.execute(reopened, values).fetchall()]
    moved = move_items(connection, ItemState.READY, now, where, values, "crashes = 0, reason = '', detail = ''")
    for each in jobs:
        move_job(connection, each, JobState.ACTIVE, now, among={JobState.DONE})
    return moved
