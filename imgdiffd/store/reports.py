"""Counts over one job or all jobs: progress, the funnel, timings."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from imgdiffd.job import TERMINAL_ITEM_STATES, ItemState, JobState
from imgdiffd.pipeline import PIPELINES, STAGES, Stage
from imgdiffd.store import meta
from imgdiffd.store.jobs import ALL, known_job, list_jobs, these_jobs
from imgdiffd.store.open_work import OpenTotals
from imgdiffd.store.previews import families
from imgdiffd.store.rows import (
    FunnelCounts,
    JobRow,
    MadeRow,
    Overview,
    Progress,
    ProgressOf,
    Timing,
)
from imgdiffd.store.values import of_row

_STAGES = {stage.value: stage for stage in Stage}  # `Stage(name)` would take most of the time of a report
_STATES = {state.value: state for state in ItemState}
_LOST = TERMINAL_ITEM_STATES - {ItemState.SAMPLED}


def _of(job: int | Collection[int] | None, column: str = "job_id") -> tuple[str, tuple[int | str, ...]]:
    """The condition that a row is of `job`, of one of several, or of any."""
    if job is None:
        return "", ()
    if isinstance(job, int):
        return f" AND {column} = ?", (job,)
    return f" AND {column} IN (SELECT value FROM json_each(?))", (json.dumps(list(job)),)


def progress(connection: sqlite3.Connection, job: int | Collection[int] | None) -> ProgressOf:
    """How far the items of `job`, of several or of all jobs, are, by pipeline. Raises InputError for an unknown job."""
    if isinstance(job, int):
        known_job(connection, job)
    where, values = _of(job)
    counts = connection.execute(
        f"SELECT pipeline, stage, state, reason, sum(n) AS n FROM counts WHERE n > 0{where}"
        " GROUP BY pipeline, stage, state, reason ORDER BY sum(n) DESC, reason",
        values,
    ).fetchall()
    passed = connection.execute(
        f"SELECT stage, sum(n) AS n FROM verdicts WHERE reason = ''{where} GROUP BY stage", values
    )
    return _by_pipeline(counts, passed.fetchall())


def progress_of_jobs(connection: sqlite3.Connection, jobs: Collection[int]) -> dict[int, ProgressOf]:
    """The `progress` of each of these jobs, in two statements; jobs without items are left out."""
    chosen = (json.dumps(list(jobs)),)
    among = "job_id IN (SELECT value FROM json_each(?))"
    counts = connection.execute(
        f"SELECT job_id, pipeline, stage, state, reason, n FROM counts WHERE {among} AND n > 0 ORDER BY job_id", chosen
    )
    passed: dict[int, list[sqlite3.Row]] = {}
    for row in connection.execute(f"SELECT job_id, stage, n FROM verdicts WHERE {among} AND reason = ''", chosen):
        passed.setdefault(row["job_id"], []).append(row)
    return {
        job: _by_pipeline(list(rows), passed.get(job, ())) for job, rows in groupby(counts, key=itemgetter("job_id"))
    }


def first_jobs(connection: sqlite3.Connection, work: OpenTotals, opened: int, ended: int) -> list[JobRow]:
    """The first `opened` open jobs: the active ones in the order of work, then the others; the newest `ended` ones."""
    return [*these_jobs(connection, work.first(opened)), *list_jobs(connection, "ended", ended, None)]


def overview(
    connection: sqlite3.Connection, rows: Sequence[JobRow], work: OpenTotals, waiting_of: int = ALL
) -> Overview:
    """These jobs with their progress, and all that is told of the others: `work`, which has looked at all changes.

    What waits is told job by job of the first `waiting_of` open jobs.
    """
    return Overview(
        rows,
        progress_of_jobs(connection, [row.id for row in rows]),
        work.counts(),
        work.queue(waiting_of),
        work.removal(),
        timings(connection),
        meta.paused(connection),
    )


def _by_pipeline(counts: Collection[sqlite3.Row], passed: Iterable[sqlite3.Row]) -> ProgressOf:
    samples = {row["stage"]: int(row["n"]) for row in passed}  # what passes the last stage is a sample
    return {
        pipeline: _progress([row for row in counts if row["pipeline"] == pipeline], samples.get(spec.stages[-1], 0))
        for pipeline, spec in PIPELINES.items()
    }


def _progress(rows: Collection[sqlite3.Row], samples: int) -> Progress:
    stages: dict[Stage, dict[ItemState, int]] = {}
    lost: dict[Stage, dict[str, int]] = {}
    for row in rows:
        stage, state, reason, number = _STAGES[row["stage"]], _STATES[row["state"]], row["reason"], row["n"]
        states = stages.setdefault(stage, {})
        states[state] = states.get(state, 0) + number
        if state in _LOST:
            reasons = lost.setdefault(stage, {})
            why = reason or state.value  # those cancelled with their job have no reason of their own
            reasons[why] = reasons.get(why, 0) + number
    return Progress({stage: stages[stage] for stage in STAGES if stage in stages}, lost, samples)


def funnel(connection: sqlite3.Connection, job: int | Collection[int] | None) -> FunnelCounts:
    """How the captions of `job`, of several or all jobs, narrowed to samples. Raises InputError for an unknown job."""
    where, values = _of(job)
    verdicts: dict[Stage, dict[str, int]] = {}
    for row in connection.execute(
        f"SELECT stage, reason, sum(n) AS n FROM verdicts WHERE n > 0{where} GROUP BY stage, reason ORDER BY n DESC",
        values,
    ):
        verdicts.setdefault(Stage(row["stage"]), {})[row["reason"]] = row["n"]
    only, _ = _of(job, "id")
    read = connection.execute(
        f"SELECT coalesce(sum(duplicates), 0), coalesce(sum(problems), 0) FROM jobs WHERE TRUE{only}", values
    ).fetchone()
    return FunnelCounts(read[0], read[1], progress(connection, job), verdicts)


def made(connection: sqlite3.Connection) -> list[MadeRow]:
    """What each job has made so far, in order of the jobs."""
    ends = {pipeline: spec.stages[-1] for pipeline, spec in PIPELINES.items()}
    rows = connection.execute(
        "SELECT jobs.id AS job, jobs.state, profiles.name AS profile, jobs.profile_id, jobs.total AS captions,"
        " jobs.duplicates, jobs.duplicate_of,"
        " coalesce(sum(n) FILTER (WHERE stage = :replacement), 0) AS samples,"
        " coalesce(sum(n) FILTER (WHERE stage = :removal), 0) AS removals"
        " FROM jobs JOIN profiles ON profiles.id = jobs.profile_id"
        " LEFT JOIN verdicts ON verdicts.job_id = jobs.id AND reason = '' GROUP BY jobs.id ORDER BY jobs.id",
        {pipeline.value: stage for pipeline, stage in ends.items()},
    )
    same = families(connection)
    return [of_row(MadeRow, row, state=JobState(row["state"]), group=str(same[row["profile_id"]])) for row in rows]


def timings(connection: sqlite3.Connection) -> list[Timing]:
    """The cost of every stage on every device, in stage order."""
    rows = connection.execute("SELECT * FROM timings ORDER BY device").fetchall()
    found = [of_row(Timing, row, stage=Stage(row["stage"])) for row in rows]
    order = list(STAGES)
    return sorted(found, key=lambda timing: order.index(timing.stage))
