"""Running totals: verdicts on the parts of items, and the cost of batches."""

import sqlite3
from collections import Counter
from collections.abc import Iterable

from imgdiffd.method.filters import Verdict
from imgdiffd.pipeline import Stage


def code_of(verdict: Verdict) -> str:
    """The verdict's reason as the database holds it: '' if it passed."""
    return verdict.reason or ""


def count_verdicts(connection: sqlite3.Connection, stage: Stage, verdicts: Iterable[tuple[int, Verdict]]) -> None:
    """Add these verdicts, each with its job, to the jobs' counts."""
    counted = Counter((job, code_of(verdict)) for job, verdict in verdicts)
    connection.executemany(
        "INSERT INTO verdicts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
        ((job, stage, code, n) for (job, code), n in counted.items()),
    )


def note_timing(
    connection: sqlite3.Connection, stage: Stage, device: str, items: int, seconds: float, now: float
) -> None:
    """Count a batch of `items` items that took `seconds` on `device`."""
    connection.execute(
        "INSERT INTO timings VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET batches = batches + 1,"
        " items = items + excluded.items, seconds = seconds + excluded.seconds, last_at = excluded.last_at",
        (stage, device, items, seconds, now),
    )
