"""Finished captions that are to come under another profile, and what painting has cost so far."""

import json
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.method.replay import PAINTING
from imgdiffd.store.jobs import known_job
from imgdiffd.store.previews import alike
from imgdiffd.store.rows import JobRow
from imgdiffd.store.values import MADE_HERE, of_row

_FINISHED = (
    f"items.origin IS NULL AND {MADE_HERE} AND items.state IN ('{ItemState.SAMPLED}', '{ItemState.REJECTED}')"
    " AND items.profile_id NOT IN (SELECT value FROM json_each(:same)) AND NOT EXISTS"
    " (SELECT 1 FROM json_each(:same) AS own JOIN items AS other ON other.profile_id = own.value"
    " AND other.caption_sha = items.caption_sha AND other.state <> 'cancelled' AND other.origin IS NULL)"
)


@dataclass(frozen=True, slots=True)
class FinishedRow:
    """A caption that ended under another profile; `group` is that profile's id, `digest` that of the caption."""

    item: int
    group: int
    line: int
    source_id: str
    caption: str
    digest: bytes


def same_profiles(connection: sqlite3.Connection, profile: int) -> list[int]:
    """The profile, and those that differ from it in thresholds of early abort alone."""
    return [profile, *alike(connection, profile)]


def finished(
    connection: sqlite3.Connection, same: Collection[int], job: int | None, after: int, limit: int
) -> list[FinishedRow]:
    """The next `limit` captions above item `after`, of one job or all, that ended and are under no profile of `same`.

    A caption that ended under several other profiles comes once for each.
    """
    only = "" if job is None else " AND items.job_id = :job"
    rows = connection.execute(
        "SELECT id AS item, profile_id, line, source_id, caption, caption_sha FROM items"
        f" WHERE id > :after AND {_FINISHED}{only} ORDER BY id LIMIT :limit",
        {"same": json.dumps(list(same)), "after": after, "job": job, "limit": limit},
    )
    return [of_row(FinishedRow, row, group=row["profile_id"], digest=row["caption_sha"]) for row in rows]


def jobs_with_finished(connection: sqlite3.Connection, same: Collection[int], job: int | None) -> list[JobRow]:
    """The jobs that have such captions, of one job or all, in order."""
    only = "" if job is None else " AND items.job_id = :job"
    rows = connection.execute(
        f"SELECT DISTINCT job_id FROM items WHERE {_FINISHED}{only} ORDER BY job_id",
        {"same": json.dumps(list(same)), "job": job},
    ).fetchall()
    return [known_job(connection, row[0]) for row in rows]


def painting_seconds(connection: sqlite3.Connection) -> float | None:
    """What rewriting and painting one pair has taken a device here, on average; None where none was painted."""
    rows = connection.execute(
        "SELECT stage, sum(seconds) / sum(items) FROM timings WHERE stage IN (SELECT value FROM json_each(?))"
        " GROUP BY stage HAVING sum(items) > 0",
        (json.dumps(sorted(PAINTING)),),
    ).fetchall()
    return sum(seconds for _, seconds in rows) if len(rows) == len(PAINTING) else None
