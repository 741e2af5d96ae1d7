"""What is open, summed up: kept in memory, so that telling it takes a look at no more jobs than have changed."""

import json
import sqlite3
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, TypeVar

from imgdiffd.job import TERMINAL_JOB_STATES, ItemState, JobState
from imgdiffd.pipeline import CAPTION_STAGES, PIPELINES, STAGES, Pipeline, Stage
from imgdiffd.store.rows import Progress, Queue, Waiting

_AT_ONCE = 5000  # jobs that are read in one statement
_STATES = tuple(JobState)
_UNKNOWN = len(_STATES)  # no job has this number, or none has it any more
_ITEM_STATES = {state.value: state for state in ItemState}
_REMOVAL_STAGES = PIPELINES[Pipeline.REMOVAL].stages
_NOTED = (("jobs", "id"), ("counts", "job_id"), ("verdicts", "job_id"))

T = TypeVar("T")
Place = tuple[Stage, ItemState]
_Order = tuple[bool, int, int]  # sorts jobs by the order of work: the active ones, by priority, the oldest first


def note_changes(connection: sqlite3.Connection, note: Callable[[int], None]) -> None:
    """Have `note` called with the number of each job that this connection changes, before the change is committed."""
    connection.create_function("note_job", 1, note)
    for table, column in _NOTED:
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            connection.execute(
                f"CREATE TEMP TRIGGER note_{table}_{event} AFTER {event} ON main.{table}"
                f" BEGIN SELECT note_job({row}.{column}); END"
            )


@dataclass(frozen=True, slots=True)
class _Job:
    """An open job, or one in which pairs wait for object removal. `order` is None of one that has ended."""

    order: _Order | None
    group: str
    captions: tuple[tuple[Place, int], ...]
    samples: int
    removals: tuple[tuple[Place, int], ...]  # empty unless pairs wait
    removal_samples: int

    @property
    def is_active(self) -> bool:
        """Whether it is worked on."""
        return self.order is not None and not self.order[0]


class OpenTotals:
    """All open jobs and all object removal that waits, as of the last `look`."""

    def __init__(self) -> None:
        self._state = bytearray()  # of each job, by its number
        self._jobs: dict[int, _Job] = {}
        self._order: list[_Order] = []
        self._counts: Counter[int] = Counter()
        self._captions: dict[str, Counter[Place]] = {}
        self._waiting: Counter[tuple[str, Stage]] = Counter()
        self._samples = 0
        self._removals: Counter[Place] = Counter()
        self._removal_samples = 0

    def look(self, connection: sqlite3.Connection, jobs: Collection[int] | None) -> None:
        """Look at these jobs, which may have changed; at all of them where it is None."""
        wanted = [row[0] for row in connection.execute("SELECT id FROM jobs")] if jobs is None else sorted(jobs)
        for first in range(0, len(wanted), _AT_ONCE):
            some = wanted[first : first + _AT_ONCE]
            states, found = _read(connection, some)
            for job in some:
                self._put(job, states.get(job, _UNKNOWN), found.get(job))

    def first(self, limit: int) -> list[int]:
        """The first `limit` open jobs in the order of work."""
        return [job for _, _, job in islice(self._order, limit)]

    def counts(self) -> dict[JobState, int]:
        """The number of all jobs by state, in the order of the states."""
        return {state: self._counts[place] for place, state in enumerate(_STATES) if self._counts[place]}

    def queue(self, limit: int) -> Queue:
        """What is open; what waits job by job only of the first `limit` active jobs in the order of work."""
        waiting = [
            Waiting(number, -priority, job.group, stage, count)
            for is_last, priority, number in islice(self._order, limit)
            if not is_last and (job := self._jobs[number])
            for (stage, state), count in job.captions
            if state is ItemState.READY
        ]
        groups = {group: stages for group, counts in self._captions.items() if (stages := _by_stage(counts))}
        return Queue(waiting, groups, self._samples, {each: n for each, n in self._waiting.items() if n})

    def removal(self) -> Progress:
        """The progress of object removal in all jobs, open or not, in which pairs wait for it."""
        return Progress(_by_stage(self._removals), {}, self._removal_samples)

    def _put(self, number: int, state: int, job: _Job | None) -> None:
        if number >= len(self._state):
            self._state.extend([_UNKNOWN] * (2 * number - len(self._state) + 1))
        self._counts[self._state[number]] -= 1
        self._counts[state] += 1
        self._state[number] = state
        if (old := self._jobs.pop(number, None)) is not None:
            self._add(old, -1)
            if old.order is not None:
                del self._order[bisect_left(self._order, old.order)]
        if job is not None:
            self._jobs[number] = job
            self._add(job, 1)
            if job.order is not None:
                insort(self._order, job.order)

    def _add(self, job: _Job, times: int) -> None:
        for place, count in job.removals:
            self._removals[place] += times * count
        self._removal_samples += times * job.removal_samples
        if job.order is None:
            return
        captions = self._captions.setdefault(job.group, Counter())
        for (stage, state), count in job.captions:
            captions[stage, state] += times * count
            if job.is_active and state is ItemState.READY:
                self._waiting[job.group, stage] += times * count
        self._samples += times * job.samples


def _by_stage(counts: Mapping[Place, int]) -> dict[Stage, dict[ItemState, int]]:
    found: dict[Stage, dict[ItemState, int]] = {}
    for stage in STAGES:
        if states := {state: n for state in ItemState if (n := counts.get((stage, state), 0))}:
            found[stage] = states
    return found


def _read(connection: sqlite3.Connection, jobs: Sequence[int]) -> tuple[dict[int, int], dict[int, _Job]]:
    """The state of each of these jobs that there is, and those that are open or have waiting removals."""
    chosen = (json.dumps(jobs),)
    among = "SELECT value FROM json_each(?)"
    rows = connection.execute(
        f"SELECT id, state, priority, profile_id FROM jobs WHERE id IN ({among})", chosen
    ).fetchall()
    ended = {row["id"] for row in rows if JobState(row["state"]) in TERMINAL_JOB_STATES}
    removing = {
        row[0]
        for row in connection.execute(
            f"SELECT DISTINCT job_id FROM counts INDEXED BY counts_ready WHERE job_id IN ({among})"
            f" AND stage IN ({', '.join('?' * len(_REMOVAL_STAGES))}) AND state = 'ready' AND n > 0",
            (*chosen, *_REMOVAL_STAGES),
        )
    }
    of_interest = (json.dumps([row["id"] for row in rows if row["id"] not in ended or row["id"] in removing]),)
    places = _grouped(
        connection.execute(
            f"SELECT job_id, pipeline, stage, state, sum(n) FROM counts WHERE job_id IN ({among}) AND n > 0"
            " GROUP BY 1, 2, 3, 4 ORDER BY 1",
            of_interest,
        )
    )
    samples = _grouped(
        connection.execute(
            f"SELECT job_id, stage, n FROM verdicts WHERE job_id IN ({among}) AND reason = '' ORDER BY job_id",
            of_interest,
        )
    )
    found = {}
    for row in rows:
        number, is_over = row["id"], row["id"] in ended
        if is_over and number not in removing:
            continue
        passed = {stage: n for _, stage, n in samples.get(number, ())}
        order = None if is_over else (row["state"] != JobState.ACTIVE, -row["priority"], number)
        found[number] = _Job(
            order,
            _shared(str(row["profile_id"])),
            _places(places.get(number, ()), Pipeline.REPLACEMENT),
            passed.get(CAPTION_STAGES[-1], 0),
            _places(places.get(number, ()), Pipeline.REMOVAL) if number in removing else (),
            passed.get(_REMOVAL_STAGES[-1], 0) if number in removing else 0,
        )
    return {row["id"]: _STATES.index(JobState(row["state"])) for row in rows}, found


def _grouped(rows: Iterable[sqlite3.Row]) -> dict[int, list[tuple[Any, ...]]]:
    return {job: [tuple(row) for row in some] for job, some in groupby(rows, key=itemgetter(0))}


def _places(rows: Sequence[tuple[Any, ...]], pipeline: Pipeline) -> tuple[tuple[Place, int], ...]:
    found = tuple(
        ((Stage(stage), _ITEM_STATES[state]), int(n)) for _, kind, stage, state, n in rows if kind == pipeline
    )
    same: tuple[tuple[Place, int], ...] = _shared(found)
    return same


@lru_cache(maxsize=4096)
def _shared(value: T) -> T:
    """The same object for equal ones: most of ten thousand small jobs are alike."""
    return value
