"""Deletes jobs with all their rows, in chunks, and gives the room back to the file system."""

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path

from imgdiffd.errors import InputError
from imgdiffd.job import TERMINAL_JOB_STATES, JobState
from imgdiffd.store import meta
from imgdiffd.store.jobs import known_job
from imgdiffd.store.moves import move_job

_log = logging.getLogger(__name__)

ITEMS_AT_ONCE = 100  # captions per operation, each with up to hundreds of rows behind it
PROBLEMS_AT_ONCE = 5000
PAGES_AT_ONCE = 500  # given back to the file system per operation

INCREMENTAL = 2  # of PRAGMA auto_vacuum
_MARK = "delete "  # and the job's number: a meta key that survives a kill midway


def mark(connection: sqlite3.Connection, job: int, now: float) -> None:
    """Have the job deleted by `delete_some`. Raises InputError if it is unknown or has not ended.

    It is CANCELLED from now on, so that nothing of it is tried again or counts as already there.
    """
    row = known_job(connection, job)
    if row.state not in TERMINAL_JOB_STATES:
        raise InputError(
            f"job {job}: cannot be deleted, it is {row.state}",
            code="wrong_job_state",
            hint=f"`imgdiffd cancel {job}` ends it",
        )
    move_job(connection, job, JobState.CANCELLED, now, among={JobState.DONE})
    meta.put(connection, f"{_MARK}{job}", "")


def marked(connection: sqlite3.Connection) -> list[int]:
    """The jobs that are marked, in order."""
    rows = connection.execute("SELECT substr(key, ?) FROM meta WHERE key GLOB ?", (len(_MARK) + 1, f"{_MARK}*"))
    return sorted(int(row[0]) for row in rows)


def delete_some(connection: sqlite3.Connection, job: int, now: float) -> bool:
    """Delete some rows of a marked job, itself last. Returns whether more are left.

    Jobs that say `duplicate_of` this one still do: its number is never given again.
    """
    chunk = "SELECT id FROM items WHERE job_id = ? AND origin IS NULL LIMIT ?"
    if connection.execute(f"DELETE FROM items WHERE id IN ({chunk})", (job, ITEMS_AT_ONCE)).rowcount:
        return True
    chunk = "SELECT rowid FROM problems WHERE job_id = ? LIMIT ?"
    if connection.execute(f"DELETE FROM problems WHERE rowid IN ({chunk})", (job, PROBLEMS_AT_ONCE)).rowcount:
        return True
    with suppress(InputError):  # deleted already, by a daemon that was killed before it removed the mark
        meta.put(connection, f"{meta.DELETED}{known_job(connection, job).group}", repr(now))
    connection.execute("DELETE FROM jobs WHERE id = ?", (job,))
    connection.execute("DELETE FROM meta WHERE key = ?", (f"{_MARK}{job}",))
    return False


def ended_before(connection: sqlite3.Connection, moment: float) -> list[int]:
    """The jobs that ended before `moment` and of which nothing is waiting any more, in order."""
    states = sorted(TERMINAL_JOB_STATES)
    rows = connection.execute(
        f"SELECT id FROM jobs WHERE state IN ({','.join('?' * len(states))}) AND finished_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM counts WHERE counts.job_id = jobs.id AND counts.state = 'ready' AND n > 0) ORDER BY id",
        (*states, moment),
    )
    return [row[0] for row in rows]


def is_open(connection: sqlite3.Connection, sha256: str) -> bool:
    """Whether a job of this content has not ended."""
    states = sorted(TERMINAL_JOB_STATES)
    query = f"SELECT EXISTS (SELECT 1 FROM jobs WHERE sha256 = ? AND state NOT IN ({','.join('?' * len(states))}))"
    return bool(connection.execute(query, (sha256, *states)).fetchone()[0])


def let_shrink(connection: sqlite3.Connection, database: Path) -> None:
    """Rewrite a database from before incremental vacuum once, so that `shrink_some` works on it.

    Where there is no room for that, it stays as it is: free pages are then used again, but never given back.
    """
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == INCREMENTAL:
        return
    connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
    try:
        connection.execute("VACUUM")  # all or nothing, wherever it is killed
    except sqlite3.OperationalError as error:
        _log.warning("%s: cannot be rewritten so that it shrinks when jobs are deleted: %s", database, error)


def shrink_some(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the file system, at the next checkpoint. Returns whether any are left."""
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
        return False
    free = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    for _ in range(min(free, PAGES_AT_ONCE)):
        # One by one: of a PRAGMA without columns, sqlite3 makes the first step only.
        connection.execute("PRAGMA incremental_vacuum(1)")
    return free > PAGES_AT_ONCE
