"""Items on their way: which are ready, what their stage needs to know of them, and those that break it.

It owns how rows become tasks and stage inputs; it does not know what the stages answer.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby, islice, product
from types import MappingProxyType

from imgdiffd.job import ItemState
from imgdiffd.method.messages import (
    CompareInput,
    ContrastInput,
    ContrastRegion,
    DescribeInput,
    GenerateInput,
    LocateInput,
    RegionInput,
    RenderInput,
    RenderRegion,
    RewriteInput,
    StageInput,
    VetInput,
)
from imgdiffd.pipeline import DEPTH, Stage
from imgdiffd.store.fair_share import fair_order
from imgdiffd.store.jobs import complete_jobs
from imgdiffd.store.moves import JOB_UNDER_WAY, move_items
from imgdiffd.store.rows import TaskRow
from imgdiffd.store.values import load_words

DOWNSTREAM_FIRST = tuple(sorted(Stage, key=DEPTH.__getitem__, reverse=True))


# Both answered by an index alone, in its order, however many items there are.
READY_JOBS = (
    "SELECT DISTINCT jobs.id, jobs.priority, jobs.profile_id FROM counts INDEXED BY counts_ready"
    " JOIN jobs ON jobs.id = counts.job_id"
    " WHERE counts.stage = ? AND counts.state = 'ready' AND counts.n > 0 AND jobs.state = 'active'"
    " ORDER BY jobs.priority DESC, jobs.id"
)
READY_ITEMS = (
    "SELECT id, attempt, crashes FROM items INDEXED BY items_ready"
    " WHERE stage = ? AND job_id = ? AND state = 'ready' ORDER BY id"
)


def _ready_of(connection: sqlite3.Connection, stage: Stage, job: sqlite3.Row) -> Iterator[TaskRow]:
    """Lazily, so that a caller who takes a few reads a few."""
    for row in connection.execute(READY_ITEMS, (stage, job["id"])):
        yield TaskRow(row["id"], stage, row["attempt"], str(job["profile_id"]), job["priority"], row["crashes"])


def _under_way(connection: sqlite3.Connection, held: Collection[int]) -> Mapping[int, int]:
    """How many of the held items each job has."""
    query = "SELECT job_id, count(*) AS n FROM items WHERE id IN (SELECT value FROM json_each(?)) GROUP BY job_id"
    return {row["job_id"]: row["n"] for row in connection.execute(query, (json.dumps(list(held)),))}


def _ready_in(
    connection: sqlite3.Connection, stage: Stage, held: Collection[int], *, background: bool
) -> Iterator[TaskRow]:
    jobs = [job for job in connection.execute(READY_JOBS, (stage,)) if (job["priority"] < 0) == background]
    under_way = _under_way(connection, held) if len(jobs) > 1 else {}
    for _, equals in groupby(jobs, key=lambda job: int(job["priority"])):
        waiting = {
            job["id"]: (task for task in _ready_of(connection, stage, job) if task.item not in held) for job in equals
        }
        yield from fair_order(waiting, under_way)


def ready_tasks(connection: sqlite3.Connection, room: int, held: Collection[int]) -> list[TaskRow]:
    """At most `room` READY items of ACTIVE jobs that are not `held`.

    Background jobs, those with a priority below 0, after all others. The most downstream stage first, then the highest
    priority; jobs of equal priority in turn, so that each has its
    share of what is under way; of a job the oldest item.
    """
    tasks: list[TaskRow] = []
    taken = frozenset(held)
    for background, stage in product((False, True), DOWNSTREAM_FIRST):
        if len(tasks) < room:
            tasks += islice(_ready_in(connection, stage, taken, background=background), room - len(tasks))
    return tasks


_PAIRS = (
    "SELECT items.id, caption, attempt, pairs.* FROM json_each(?) AS asked"
    " CROSS JOIN items ON items.id = asked.value JOIN jobs ON jobs.id = items.job_id"
    " LEFT JOIN pairs ON pairs.item_id = items.id"
    f" WHERE items.stage = ? AND items.state = 'ready' AND {JOB_UNDER_WAY} ORDER BY asked.key"
)
_REGIONS = (
    "SELECT regions.* FROM json_each(?) AS asked CROSS JOIN regions ON regions.item_id = asked.value"
    " WHERE reason = '' ORDER BY asked.key, number"
)
_Regions = Mapping[int, Sequence[sqlite3.Row]]


def _box(row: sqlite3.Row) -> tuple[int, int, int, int]:
    return row["x1"], row["y1"], row["x2"], row["y2"]


def _rewrite(row: sqlite3.Row, _: _Regions) -> StageInput:
    return RewriteInput(row["id"], row["caption"], row["attempt"])


def _generate(row: sqlite3.Row, _: _Regions) -> StageInput:
    return GenerateInput(row["id"], row["caption"], row["caption2"], row["attempt"])


def _compare(row: sqlite3.Row, _: _Regions) -> StageInput:
    return CompareInput(row["id"], row["image1"], row["image2"])


def _vet(row: sqlite3.Row, _: _Regions) -> StageInput:
    return VetInput(row["id"], row["image1"], row["image2"])


def _locate(row: sqlite3.Row, _: _Regions) -> StageInput:
    nouns1, nouns2 = load_words(row["nouns1"]), load_words(row["nouns2"])
    return LocateInput(row["id"], row["image1"], row["image2"], nouns1, nouns2)


def _describe(row: sqlite3.Row, kept: _Regions) -> StageInput:
    regions = tuple(RegionInput(region["number"], _box(region)) for region in kept.get(row["id"], ()))
    return DescribeInput(row["id"], row["image1"], row["image2"], regions)


def _contrast(row: sqlite3.Row, kept: _Regions) -> StageInput:
    regions = tuple(
        ContrastRegion(region["number"], _box(region), region["text1"], region["text2"], region["left_side"])
        for region in kept.get(row["id"], ())
    )
    return ContrastInput(row["id"], row["image1"], row["image2"], regions)


def _render(row: sqlite3.Row, kept: _Regions) -> StageInput:
    regions = tuple(
        RenderRegion(region["number"], _box(region), region["left_side"]) for region in kept.get(row["id"], ())
    )
    return RenderInput(row["id"], row["image1"], row["image2"], regions)


_INPUTS: Mapping[Stage, Callable[[sqlite3.Row, _Regions], StageInput]] = MappingProxyType(
    {
        Stage.REWRITE: _rewrite,
        Stage.GENERATE: _generate,
        Stage.COMPARE: _compare,
        Stage.VET: _vet,
        Stage.LOCATE: _locate,
        Stage.DESCRIBE: _describe,
        Stage.CONTRAST: _contrast,
        Stage.RENDER: _render,
    }
)
_OF_REGIONS = frozenset({Stage.DESCRIBE, Stage.CONTRAST, Stage.RENDER})


def stage_inputs(connection: sqlite3.Connection, stage: Stage, items: Sequence[int]) -> list[StageInput]:
    """What `stage` needs of each item, in order; items that are no longer READY in it are left out."""
    asked = json.dumps(list(items))
    regions: dict[int, list[sqlite3.Row]] = {}
    if stage in _OF_REGIONS:
        for row in connection.execute(_REGIONS, (asked,)):
            regions.setdefault(row["item_id"], []).append(row)
    rows = connection.execute(_PAIRS, (asked, stage))
    return [_INPUTS[stage](row, regions) for row in rows]


def record_crashes(connection: sqlite3.Connection, items: Collection[int], now: float) -> None:
    """Count one more crash against each of the items that is READY."""
    for item in items:
        move_items(connection, ItemState.READY, now, "id = ? AND state = 'ready'", (item,), "crashes = crashes + 1")


def quarantine(connection: sqlite3.Connection, item: int, reason: str, detail: str, now: float) -> bool:
    """The item is FAILED, and its job ends if it was the last. False where it is no longer READY."""
    moved = move_items(connection, ItemState.FAILED, now, "id = ?", (item,), "reason = ?, detail = ?", (reason, detail))
    if moved:
        job = connection.execute("SELECT job_id FROM items WHERE id = ?", (item,)).fetchone()[0]
        complete_jobs(connection, [job], now)
    return moved > 0
