"""Jobs and their captions: listing, adding, reading and completing them."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence

from imgdiffd.errors import InputError, unknown_job
from imgdiffd.job import (
    TERMINAL_JOB_STATES,
    CaptionProblem,
    CaptionRecord,
    ItemState,
    JobChoice,
    JobState,
    chosen_states,
)
from imgdiffd.method.advance import FIRST_ATTEMPT
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import CAPTION_STAGES, PIPELINES
from imgdiffd.store import meta
from imgdiffd.store.moves import move_job
from imgdiffd.store.previews import alike
from imgdiffd.store.rows import JobRow, Whole
from imgdiffd.store.values import of_row

ALL = 2**63 - 1  # as a limit
STATES_HINT = "`imgdiffd jobs` shows the state of every job"
_JOB = "SELECT jobs.*, profiles.name AS profile FROM jobs JOIN profiles ON profiles.id = jobs.profile_id"


def _job_row(row: sqlite3.Row) -> JobRow:
    return of_row(JobRow, row, group=str(row["profile_id"]), state=JobState(row["state"]))


def find_job(connection: sqlite3.Connection, job: int) -> JobRow | None:
    """The job, or None if it is unknown."""
    row = connection.execute(f"{_JOB} WHERE jobs.id = ?", (job,)).fetchone()
    return None if row is None else _job_row(row)


def known_job(connection: sqlite3.Connection, job: int) -> JobRow:
    """The job. Raises InputError if it is unknown."""
    row = find_job(connection, job)
    if row is None:
        raise unknown_job(job)
    return row


def these_jobs(connection: sqlite3.Connection, wanted: Sequence[int]) -> list[JobRow]:
    """These jobs in their order; the unknown ones are left out."""
    rows = connection.execute(
        "SELECT jobs.*, profiles.name AS profile FROM json_each(?) AS asked CROSS JOIN jobs ON jobs.id = asked.value"
        " JOIN profiles ON profiles.id = jobs.profile_id ORDER BY asked.key",
        (json.dumps(list(wanted)),),
    )
    return [_job_row(row) for row in rows]


def open_jobs(connection: sqlite3.Connection) -> tuple[frozenset[int], int]:
    """The jobs that have not ended, and the highest number ever given."""
    states = sorted(set(JobState) - TERMINAL_JOB_STATES)
    rows = connection.execute(f"SELECT id FROM jobs WHERE state IN ({','.join('?' * len(states))})", states).fetchall()
    newest = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
    return frozenset(row[0] for row in rows), newest[0]


def list_jobs(connection: sqlite3.Connection, choice: JobChoice, limit: int, after: int | None) -> list[JobRow]:
    """The first `limit` jobs of `choice` after the cursor `after`: the open ones, then the ended ones.

    Both stand newest first. A cursor is the number of the last job seen, negative if that one had ended. Raises
    InputError for 0, which is none.
    """
    if after == 0:
        raise InputError(
            "no list of jobs ends at 0", code="bad_cursor", hint="give the `next` of the page before, or none"
        )
    states, found = chosen_states(choice), list[int]()
    if after is None or after > 0:
        found += _newest(connection, states - TERMINAL_JOB_STATES, after or ALL, limit)
    if len(found) < limit:
        below = ALL if after is None or after > 0 else -after
        found += _newest(connection, states & TERMINAL_JOB_STATES, below, limit - len(found))
    return these_jobs(connection, found)


def _newest(connection: sqlite3.Connection, states: Iterable[JobState], below: int, limit: int) -> list[int]:
    # State by state, since the index on states then gives each page at once, however many jobs have ended.
    found = [
        row[0]
        for state in states
        for row in connection.execute(
            "SELECT id FROM jobs WHERE state = ? AND id < ? ORDER BY id DESC LIMIT ?", (state, below, limit)
        )
    ]
    return sorted(found, reverse=True)[:limit]


def list_problems(connection: sqlite3.Connection, job: int, limit: int, after: int) -> list[CaptionProblem]:
    """Up to `limit` records of the job that could not be read, behind the first `after`."""
    rows = connection.execute(
        "SELECT line, code, message FROM problems WHERE job_id = ? ORDER BY line, rowid LIMIT ? OFFSET ?",
        (job, limit, after),
    )
    return [of_row(CaptionProblem, row) for row in rows]


def keep_profile(connection: sqlite3.Connection, profile: Profile) -> int:
    """The id of this profile, which is inserted if it is new; equal profiles share one id."""
    text = profile.stored()
    digest = hashlib.sha256(text.encode()).hexdigest()
    connection.execute(
        "INSERT INTO profiles (sha256, name, json) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (digest, profile.name, text),
    )
    found: int = connection.execute("SELECT id FROM profiles WHERE sha256 = ?", (digest,)).fetchone()[0]
    return found


def add_job(
    connection: sqlite3.Connection,
    name: str,
    source: str,
    sha256: str,
    profile: Profile,
    priority: int,
    now: float,
    whole: Whole | None = None,
    changed_at: float | None = None,
    *,
    finish: bool = True,
) -> JobRow:
    """Insert a job: READING, or DONE at once if a job that was not cancelled already has this content and profile.

    With `whole`, the entire content of its file, it gets that at once and, with `finish`, is read to its end. If a job
    has already taken the file at this `source` as it is since `changed_at`, that one is returned instead.
    """
    if changed_at is not None and (taken := _taken_job(connection, source, sha256, changed_at)):
        return taken
    profile_id = keep_profile(connection, profile)
    shared = json.dumps([profile_id, *alike(connection, profile_id)])
    ended = JobState.CANCELLED, JobState.FAILED
    original = connection.execute(
        "SELECT id FROM jobs WHERE sha256 = ? AND profile_id = ? AND duplicate_of IS NULL AND state NOT IN (?, ?)"
        # Captions that it left to a job cancelled or deleted since then belong to no job now: read the file again.
        " AND NOT (duplicates > 0 AND (EXISTS (SELECT 1 FROM json_each(?) AS one JOIN jobs AS gone"
        " ON gone.profile_id = one.value WHERE gone.state IN (?, ?) AND gone.finished_at >= jobs.created_at)"
        " OR EXISTS (SELECT 1 FROM json_each(?) AS one JOIN meta ON meta.key = ? || one.value"
        " WHERE CAST(meta.value AS REAL) >= jobs.created_at)))",
        (sha256, profile_id, *ended, shared, *ended, shared, meta.DELETED),
    ).fetchone()
    duplicate_of = None if original is None else original["id"]
    cursor = connection.execute(
        "INSERT INTO jobs (name, source, sha256, profile_id, priority, state, created_at, duplicate_of)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (name, source, sha256, profile_id, priority, JobState.READING, now, duplicate_of),
    )
    job = cursor.lastrowid
    if job is None:
        raise AssertionError("INSERT returned no row id")
    if duplicate_of is not None:
        move_job(connection, job, JobState.DONE, now)
    else:  # duplicates of a half-read job that a restart dropped now point to its replacement
        connection.execute(
            "UPDATE jobs SET duplicate_of = ? WHERE sha256 = ? AND profile_id = ? AND duplicate_of IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM jobs AS original WHERE original.id = jobs.duplicate_of)",
            (job, sha256, profile_id),
        )
    if duplicate_of is None and whole is not None:
        add_captions(connection, job, *whole, now)
        if finish:
            return finish_reading(connection, job, now)
    return known_job(connection, job)


def _taken_job(connection: sqlite3.Connection, source: str, sha256: str, since: float) -> JobRow | None:
    row = connection.execute(
        f"{_JOB} WHERE jobs.sha256 = ? AND jobs.source = ? AND jobs.created_at >= ? AND jobs.state NOT IN (?, ?)"
        " ORDER BY jobs.id DESC LIMIT 1",
        (sha256, source, since, JobState.READING, JobState.FAILED),
    ).fetchone()
    return None if row is None else _job_row(row)


def _in_state(connection: sqlite3.Connection, job: int, wanted: JobState, doing: str) -> JobRow:
    row = known_job(connection, job)
    if row.state is not wanted:
        raise InputError(f"job {job}: cannot {doing}, it is {row.state}", code="wrong_job_state", hint=STATES_HINT)
    return row


def add_captions(
    connection: sqlite3.Connection,
    job: int,
    records: Sequence[CaptionRecord],
    problems: Sequence[CaptionProblem],
    now: float,
) -> tuple[int, int]:
    """Insert a chunk of captions into a READING job. Returns how many were accepted and how many were duplicates.

    A caption is a duplicate if any job has an item for it with the same profile that is not cancelled, or with one that
    differs only in the thresholds of early abort.
    """
    profile_id = int(_in_state(connection, job, JobState.READING, "take captions").group)
    others = json.dumps(alike(connection, profile_id))
    cursor = connection.executemany(
        "INSERT INTO items (job_id, profile_id, line, source_id, caption, caption_sha, stage, state, attempt,"
        " created_at, updated_at) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10 WHERE NOT EXISTS"
        " (SELECT 1 FROM json_each(?11) AS other JOIN items ON items.profile_id = other.value"
        " AND items.caption_sha = ?6 AND items.state <> 'cancelled' AND items.origin IS NULL)"
        " ON CONFLICT (profile_id, caption_sha) WHERE state <> 'cancelled' AND origin IS NULL DO NOTHING",
        (
            (
                job,
                profile_id,
                record.line,
                record.source_id,
                record.text,
                hashlib.blake2b(record.text.encode("utf-8"), digest_size=16).digest(),
                CAPTION_STAGES[0],
                ItemState.READY,
                FIRST_ATTEMPT,
                now,
                others,
            )
            for record in records
        ),
    )
    accepted = max(cursor.rowcount, 0)
    duplicates = len(records) - accepted
    connection.executemany(
        "INSERT INTO problems (job_id, line, code, message) VALUES (?, ?, ?, ?)",
        ((job, problem.line, problem.code, problem.message) for problem in problems),
    )
    connection.execute(
        "UPDATE jobs SET total = total + ?, duplicates = duplicates + ?, problems = problems + ? WHERE id = ?",
        (accepted, duplicates, len(problems), job),
    )
    return accepted, duplicates


HOLDING = ", ".join(f"'{pipeline}'" for pipeline, spec in PIPELINES.items() if spec.holds_job)
_HELD_OPEN = (
    f"SELECT EXISTS (SELECT 1 FROM counts WHERE job_id = ? AND pipeline IN ({HOLDING}) AND state = 'ready' AND n > 0)"
)


def _held_open(connection: sqlite3.Connection, job: int) -> bool:
    """Whether the job has READY items in a pipeline that keeps it from being DONE."""
    return bool(connection.execute(_HELD_OPEN, (job,)).fetchone()[0])


def complete_jobs(connection: sqlite3.Connection, jobs: Iterable[int], now: float) -> list[int]:
    """End the ACTIVE jobs among these that no item holds open any more. Returns them."""
    return [
        job
        for job in jobs
        if not _held_open(connection, job) and move_job(connection, job, JobState.DONE, now, among={JobState.ACTIVE})
    ]


def finish_reading(connection: sqlite3.Connection, job: int, now: float) -> JobRow:
    """Mark a fully read job ACTIVE, or DONE if it brought nothing new."""
    _in_state(connection, job, JobState.READING, "finish reading")
    target = JobState.ACTIVE if _held_open(connection, job) else JobState.DONE
    move_job(connection, job, target, now, among={JobState.READING})
    return known_job(connection, job)


def fail_job(connection: sqlite3.Connection, job: int, error: str, now: float) -> JobRow:
    """Mark a job whose file cannot be read FAILED; `orders.cancel_leftovers` then frees its captions for other jobs."""
    _in_state(connection, job, JobState.READING, "fail")
    move_job(connection, job, JobState.FAILED, now, error=error)
    return known_job(connection, job)


def drop_unread_jobs(connection: sqlite3.Connection) -> list[JobRow]:
    """Remove jobs that were being read when the daemon ended, with their items; their files are read again."""
    rows = [_job_row(row) for row in connection.execute(f"{_JOB} WHERE jobs.state = ?", (JobState.READING,)).fetchall()]
    for row in rows:
        connection.execute("DELETE FROM items WHERE job_id = ?", (row.id,))
        connection.execute("DELETE FROM jobs WHERE id = ?", (row.id,))
    return rows
