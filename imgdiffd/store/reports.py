"""Counts over all or one job: progress, the funnel, timings.

It owns what is counted and where the counts are kept; it does not know how they are shown.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable
from itertools import groupby
from operator import itemgetter

from imgdiffd.job import ItemState
from imgdiffd.pipeline import STAGES, Stage
from imgdiffd.store import removal_reports
from imgdiffd.store.jobs import known_job
from imgdiffd.store.rows import FunnelCounts, Progress, Timing


def _of(job: int | None) -> tuple[str, tuple[int, ...]]:
    return ("", ()) if job is None else (" AND job_id = ?", (job,))


def progress(connection: sqlite3.Connection, job: int | None) -> Progress:
    """Where the items of `job`, or of all jobs, are. Raises InputError for an unknown job."""
    if job is not None:
        known_job(connection, job)
    where, values = _of(job)
    rows = connection.execute(
        f"SELECT stage, state, reason, sum(n) AS n FROM counts WHERE n > 0{where} GROUP BY stage, state, reason", values
    )
    samples = connection.execute(
        f"SELECT coalesce(sum(n), 0) FROM verdicts WHERE stage = 'render' AND reason = ''{where}", values
    ).fetchone()[0]
    return _progress(rows, samples)


def progress_of_jobs(connection: sqlite3.Connection, jobs: Collection[int]) -> dict[int, Progress]:
    """As `progress`, of each of the jobs in two statements; a job without items is left out."""
    chosen = (json.dumps(list(jobs)),)
    among = "job_id IN (SELECT value FROM json_each(?))"
    counts = connection.execute(
        f"SELECT job_id, stage, state, reason, n FROM counts WHERE {among} AND n > 0 ORDER BY job_id", chosen
    )
    samples = dict(
        connection.execute(
            f"SELECT job_id, n FROM verdicts WHERE {among} AND stage = 'render' AND reason = ''", chosen
        ).fetchall()
    )
    return {job: _progress(rows, samples.get(job, 0)) for job, rows in groupby(counts, key=itemgetter("job_id"))}


def _progress(rows: Iterable[sqlite3.Row], samples: int) -> Progress:
    stages: dict[Stage, dict[ItemState, int]] = {}
    reasons: dict[str, int] = {}
    for row in rows:
        states = stages.setdefault(Stage(row["stage"]), {})
        state = ItemState(row["state"])
        states[state] = states.get(state, 0) + row["n"]
        if row["reason"]:
            reasons[row["reason"]] = reasons.get(row["reason"], 0) + row["n"]
    ordered = {stage: stages[stage] for stage in STAGES if stage in stages}
    return Progress(ordered, dict(sorted(reasons.items(), key=lambda pair: -pair[1])), samples)


def _by_stage(rows: Iterable[sqlite3.Row]) -> dict[Stage, dict[str, int]]:
    table: dict[Stage, dict[str, int]] = {}
    for row in rows:
        table.setdefault(Stage(row["stage"]), {})[row["reason"]] = row["n"]
    return {stage: table[stage] for stage in STAGES if stage in table}


def funnel(connection: sqlite3.Connection, job: int | None) -> FunnelCounts:
    """What of `job`, or of everything, came how far, and why the rest did not. Raises InputError for an unknown job."""
    state = progress(connection, job)
    where, values = _of(job)
    by_state = (
        "SELECT stage, reason, sum(n) AS n FROM counts WHERE n > 0 AND state = ?"
        f"{where} GROUP BY stage, reason ORDER BY n DESC"
    )
    rejected = _by_stage(connection.execute(by_state, (ItemState.REJECTED, *values)))
    failed = _by_stage(connection.execute(by_state, (ItemState.FAILED, *values)))
    verdicts = _by_stage(
        connection.execute(
            f"SELECT stage, reason, sum(n) AS n FROM verdicts WHERE n > 0{where}"
            " GROUP BY stage, reason ORDER BY n DESC",
            values,
        )
    )
    only = "" if job is None else " WHERE id = ?"
    read = connection.execute(
        f"SELECT coalesce(sum(duplicates), 0), coalesce(sum(problems), 0) FROM jobs{only}", values
    ).fetchone()
    boxes, vetted = verdicts.get(Stage.LOCATE, {}), verdicts.get(Stage.VET, {})
    return FunnelCounts(
        captions=state.total,
        duplicates=read[0],
        problems=read[1],
        rewritten=state.passed(Stage.REWRITE),
        painted=state.passed(Stage.GENERATE),
        alike=state.passed(Stage.COMPARE),
        vetted=sum(vetted.values()),
        natural=vetted.get("", 0),
        boxes=sum(boxes.values()),
        regions=boxes.get("", 0),
        described=verdicts.get(Stage.DESCRIBE, {}).get("", 0),
        samples=state.samples,
        items_sampled=state.in_state(ItemState.SAMPLED),
        rejected=rejected,
        failed=failed,
        verdicts=verdicts,
        removals=removal_reports.progress(connection, job),
    )


def timings(connection: sqlite3.Connection) -> list[Timing]:
    """What every stage has cost on every device, in the stages' order."""
    rows = connection.execute("SELECT * FROM timings ORDER BY device").fetchall()
    found = [
        Timing(Stage(row["stage"]), row["device"], row["batches"], row["items"], row["seconds"], row["last_at"])
        for row in rows
    ]
    order = list(STAGES)
    return sorted(found, key=lambda timing: order.index(timing.stage))
