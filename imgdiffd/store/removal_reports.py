"""What came of object removal: counts, finished samples, and one pair's story.

It owns how these rows become records. Databases of before object removal, which readers take as they are, have none.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping

from imgdiffd.job import ItemState
from imgdiffd.method.removal import RemovalSample, holder_of
from imgdiffd.method.removal_messages import FoundBox
from imgdiffd.pipeline import Stage
from imgdiffd.store.migration import version_of
from imgdiffd.store.removal_rows import ErasureRow, RemovalProgress, RemovalStory
from imgdiffd.store.removals import erasure_of, erasures_of
from imgdiffd.store.values import load_scores

_FIRST_VERSION = 3  # of the schema that knows of it


def _unknown(connection: sqlite3.Connection) -> bool:
    return version_of(connection) < _FIRST_VERSION


def progress_of_jobs(connection: sqlite3.Connection) -> Mapping[int, RemovalProgress]:
    """Where the removals of each job are that has any."""
    if _unknown(connection):
        return {}
    counts: dict[int, list[sqlite3.Row]] = {}
    for row in connection.execute("SELECT job_id, stage, state, reason, n FROM removal_counts WHERE n > 0"):
        counts.setdefault(row["job_id"], []).append(row)
    samples = {
        row["job_id"]: row["n"]
        for row in connection.execute("SELECT job_id, n FROM verdicts WHERE stage = 'inspect' AND reason = ''")
    }
    return {job: _progress(rows, samples.get(job, 0)) for job, rows in counts.items()}


def progress(connection: sqlite3.Connection, job: int | None) -> RemovalProgress:
    """Where the removals of `job`, or of all jobs, are."""
    if _unknown(connection):
        return _progress([], 0)
    where, values = ("", ()) if job is None else (" AND job_id = ?", (job,))
    rows = connection.execute(
        f"SELECT stage, state, reason, sum(n) AS n FROM removal_counts WHERE n > 0{where}"
        " GROUP BY stage, state, reason ORDER BY sum(n) DESC, reason",
        values,
    ).fetchall()
    samples = connection.execute(
        f"SELECT coalesce(sum(n), 0) FROM verdicts WHERE stage = 'inspect' AND reason = ''{where}", values
    ).fetchone()[0]
    return _progress(rows, samples)


def _progress(rows: Iterable[sqlite3.Row], samples: int) -> RemovalProgress:
    stages: dict[Stage, dict[ItemState, int]] = {}
    lost: dict[Stage, dict[str, int]] = {}
    for row in rows:
        stage, state, reason = Stage(row["stage"]), ItemState(row["state"]), row["reason"]
        states = stages.setdefault(stage, {})
        states[state] = states.get(state, 0) + row["n"]
        if reason:
            reasons = lost.setdefault(stage, {})
            reasons[reason] = reasons.get(reason, 0) + row["n"]
    return RemovalProgress(stages, lost, samples)


def sampled_items(connection: sqlite3.Connection, job: int | None, after: int, limit: int) -> list[int]:
    """The next `limit` items above `after` whose pairs gave removal samples."""
    if _unknown(connection):
        return []
    only = "" if job is None else " AND job_id = ?"
    values = (after, limit) if job is None else (after, job, limit)
    rows = connection.execute(
        f"SELECT item_id FROM removals WHERE state = 'sampled' AND item_id > ?{only} ORDER BY item_id LIMIT ?", values
    )
    return [row["item_id"] for row in rows]


def samples_of(connection: sqlite3.Connection, item: int) -> list[RemovalSample]:
    """The removal samples of one pair."""
    return [
        RemovalSample(erasure, row["text"], holder_of(erasure), row["with_image"], row["without_image"])
        for row in erasures_of(connection, item)
        if row["with_image"]
        for erasure in [erasure_of(row)]
    ]


def _erasure(row: sqlite3.Row) -> ErasureRow:
    erasure = erasure_of(row)
    sample = RemovalSample(erasure, row["text"], holder_of(erasure), row["with_image"], row["without_image"])
    return ErasureRow(
        erasure,
        row["text"],
        load_scores(row["scores"]),
        sample.holder,
        sample.answer,
        row["with_image"],
        row["without_image"],
        row["reason"],
        row["detail"],
    )


def story(connection: sqlite3.Connection, item: int) -> RemovalStory | None:
    """Everything known of the removal of this item's pair; None where none was asked for."""
    if _unknown(connection):
        return None
    row = connection.execute("SELECT * FROM removals WHERE item_id = ?", (item,)).fetchone()
    if row is None:
        return None
    found = [
        (FoundBox(box["image"], (x1, y1, x2, y2), box["scores"]), str(box["reason"]))
        for box in json.loads(row["boxes"])
        for x1, y1, x2, y2 in [box["box"]]
    ]
    return RemovalStory(
        Stage(row["stage"]),
        ItemState(row["state"]),
        row["attempt"],
        row["crashes"],
        row["reason"],
        row["detail"],
        row["created_at"],
        row["updated_at"],
        tuple(found),
        tuple(map(_erasure, erasures_of(connection, item))),
    )
