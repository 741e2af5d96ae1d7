"""Work items on their way: which are ready, the inputs of their stages, crashes and quarantine."""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
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
    ScreenInput,
    StageInput,
    VetInput,
)
from imgdiffd.method.removal_messages import EraseInput, InspectInput
from imgdiffd.pipeline import CAPTION_STAGES, PIPELINES, Pipeline, Stage, Task, priority_in
from imgdiffd.store.erasures import erasure_of
from imgdiffd.store.fair_share import fair_order
from imgdiffd.store.jobs import complete_jobs
from imgdiffd.store.moves import MAY_MOVE, MAY_RUN, move_items
from imgdiffd.store.values import box_of, load_words

# An index alone answers both, already in order, so their cost does not grow with the number of items.
READY_JOBS = (
    "SELECT DISTINCT jobs.id, jobs.priority, jobs.profile_id FROM counts INDEXED BY counts_ready"
    " JOIN jobs ON jobs.id = counts.job_id"
    f" WHERE counts.stage = ? AND counts.state = 'ready' AND counts.n > 0 AND {MAY_RUN}"
    " ORDER BY jobs.priority DESC, jobs.id"
)
READY_ITEMS = (
    "SELECT id, attempt, crashes FROM items INDEXED BY items_ready"
    " WHERE stage = ? AND job_id = ? AND state = 'ready' ORDER BY id"
)


def _ready_of(connection: sqlite3.Connection, stage: Stage, job: sqlite3.Row) -> Iterator[Task]:
    """Lazy: a caller that takes a few tasks reads only their rows."""
    priority = priority_in(stage, job["priority"])
    for row in connection.execute(READY_ITEMS, (stage, job["id"])):
        yield Task(row["id"], stage, row["attempt"], str(job["profile_id"]), priority, row["crashes"])


def _under_way(connection: sqlite3.Connection, held: Collection[int]) -> Mapping[int, int]:
    """The number of held items per job."""
    query = "SELECT job_id, count(*) AS n FROM items WHERE id IN (SELECT value FROM json_each(?)) GROUP BY job_id"
    return {row["job_id"]: row["n"] for row in connection.execute(query, (json.dumps(list(held)),))}


def _ready_in(
    connection: sqlite3.Connection, stage: Stage, held: Collection[int], wanted: Callable[[int], bool]
) -> Iterator[Task]:
    """The ready tasks of one stage, from the jobs whose priority is `wanted`."""
    jobs = [job for job in connection.execute(READY_JOBS, (stage,)) if wanted(job["priority"])]
    under_way = _under_way(connection, held) if len(jobs) > 1 else {}
    for _, equals in groupby(jobs, key=lambda job: int(job["priority"])):
        waiting = {
            job["id"]: (task for task in _ready_of(connection, stage, job) if task.item not in held) for job in equals
        }
        yield from fair_order(waiting, under_way)


def _classes(pipelines: Collection[Pipeline]) -> Iterator[tuple[Stage, Callable[[int], bool]]]:
    """The order in which tasks are taken: stages, each with a test of the job's priority."""
    specs = [spec for pipeline, spec in PIPELINES.items() if pipeline in pipelines]
    by_job = [spec for spec in specs if spec.priority is None]
    by_pipeline = sorted((spec for spec in specs if spec.priority is not None), key=lambda spec: -(spec.priority or 0))
    for wanted in (lambda priority: priority >= 0, lambda priority: priority < 0):
        yield from ((stage, wanted) for spec in by_job for stage in reversed(spec.stages))
    yield from ((stage, lambda _: True) for spec in by_pipeline for stage in reversed(spec.stages))


def ready_tasks(
    connection: sqlite3.Connection, room: int, held: Collection[int], pipelines: Collection[Pipeline]
) -> list[Task]:
    """At most `room` READY items of these pipelines that are not `held` and whose jobs are running.

    Pipelines with their own priority come last, and background jobs (priority below 0) come after other jobs. Within
    these classes, the most downstream stage comes first, then the highest priority. Jobs of equal priority get fair
    shares; within a job, the oldest item comes first.
    """
    tasks: list[Task] = []
    taken = frozenset(held)
    for stage, wanted in _classes(pipelines):
        if len(tasks) < room:
            tasks += islice(_ready_in(connection, stage, taken, wanted), room - len(tasks))
    return tasks


_INPUTS = (
    "SELECT items.id, caption, attempt, pairs.* FROM json_each(?) AS asked"
    " CROSS JOIN items ON items.id = asked.value JOIN jobs ON jobs.id = items.job_id"
    " LEFT JOIN pairs ON pairs.item_id = coalesce(items.origin, items.id)"
    f" WHERE items.stage = ? AND items.state = 'ready' AND {MAY_MOVE} ORDER BY asked.key"
)
_PARTS = (  # the parts of an item that no stage has rejected so far
    "SELECT {0}.* FROM json_each(?) AS asked CROSS JOIN {0} ON {0}.item_id = asked.value"
    " WHERE reason = '' ORDER BY asked.key, {1}"
)
_REGIONS = _PARTS.format("regions", "number")
_ERASURES = _PARTS.format("erasures", "image, number")
_Parts = Sequence[sqlite3.Row]


def _rewrite(row: sqlite3.Row, _: _Parts) -> StageInput:
    return RewriteInput(row["id"], row["caption"], row["attempt"])


def _generate(row: sqlite3.Row, _: _Parts) -> StageInput:
    return GenerateInput(row["id"], row["caption"], row["caption2"], row["attempt"])


def _compare(row: sqlite3.Row, _: _Parts) -> StageInput:
    return CompareInput(row["id"], row["image1"], row["image2"])


def _vet(row: sqlite3.Row, _: _Parts) -> StageInput:
    return VetInput(row["id"], row["image1"], row["image2"])


def _locate(row: sqlite3.Row, _: _Parts) -> StageInput:
    nouns1, nouns2 = load_words(row["nouns1"]), load_words(row["nouns2"])
    return LocateInput(row["id"], row["image1"], row["image2"], nouns1, nouns2)


def _describe(row: sqlite3.Row, kept: _Parts) -> StageInput:
    regions = tuple(RegionInput(region["number"], box_of(region)) for region in kept)
    return DescribeInput(row["id"], row["image1"], row["image2"], regions)


def _contrast(row: sqlite3.Row, kept: _Parts) -> StageInput:
    regions = tuple(
        ContrastRegion(region["number"], box_of(region), region["text1"], region["text2"], region["left_side"])
        for region in kept
    )
    return ContrastInput(row["id"], row["image1"], row["image2"], regions)


def _boxed(kept: _Parts) -> tuple[RenderRegion, ...]:
    return tuple(RenderRegion(region["number"], box_of(region), region["left_side"]) for region in kept)


def _screen(row: sqlite3.Row, kept: _Parts) -> StageInput:
    return ScreenInput(row["id"], row["image1"], row["image2"], _boxed(kept))


def _render(row: sqlite3.Row, kept: _Parts) -> StageInput:
    return RenderInput(row["id"], row["image1"], row["image2"], _boxed(kept))


def _erase(row: sqlite3.Row, _: _Parts) -> StageInput:
    nouns1, nouns2 = load_words(row["nouns1"]), load_words(row["nouns2"])
    return EraseInput(row["id"], row["image1"], row["image2"], row["caption"], row["attempt"], nouns1, nouns2)


def _inspect(row: sqlite3.Row, kept: _Parts) -> StageInput:
    return InspectInput(row["id"], tuple(erasure_of(each, row["id"]) for each in kept))


_READS: Mapping[Stage, tuple[Callable[[sqlite3.Row, _Parts], StageInput], str | None]] = MappingProxyType(
    {
        Stage.REWRITE: (_rewrite, None),
        Stage.GENERATE: (_generate, None),
        Stage.COMPARE: (_compare, None),
        Stage.VET: (_vet, None),
        Stage.LOCATE: (_locate, None),
        Stage.DESCRIBE: (_describe, _REGIONS),
        Stage.CONTRAST: (_contrast, _REGIONS),
        Stage.SCREEN: (_screen, _REGIONS),
        Stage.RENDER: (_render, _REGIONS),
        Stage.ERASE: (_erase, None),
        Stage.INSPECT: (_inspect, _ERASURES),
    }
)


def stage_inputs(connection: sqlite3.Connection, stage: Stage, items: Sequence[int]) -> list[StageInput]:
    """The inputs of `stage` for these items, in order; items that are no longer READY in it are left out."""
    asked = json.dumps(list(items))
    make, query = _READS[stage]
    parts = parts_by_item(connection.execute(query, (asked,))) if query else {}
    return [make(row, parts.get(row["id"], ())) for row in connection.execute(_INPUTS, (asked, stage)).fetchall()]


def parts_by_item(rows: Iterable[sqlite3.Row]) -> dict[int, list[sqlite3.Row]]:
    """Group rows by their `item_id`, keeping their order."""
    parts: dict[int, list[sqlite3.Row]] = {}
    for row in rows:
        parts.setdefault(row["item_id"], []).append(row)
    return parts


def record_crashes(connection: sqlite3.Connection, items: Collection[int], now: float) -> None:
    """Count one more crash against each item that is still READY."""
    for item in items:
        move_items(connection, ItemState.READY, now, "id = ? AND state = 'ready'", (item,), "crashes = crashes + 1")


def quarantine(connection: sqlite3.Connection, item: int, reason: str, detail: str, now: float) -> bool:
    """Mark the item FAILED, and end its job if it was the last. Returns False if it was no longer READY."""
    moved = move_items(connection, ItemState.FAILED, now, "id = ?", (item,), "reason = ?, detail = ?", (reason, detail))
    if moved:
        job = connection.execute("SELECT job_id FROM items WHERE id = ?", (item,)).fetchone()[0]
        complete_jobs(connection, [job], now)
    return moved > 0


def of_job(connection: sqlite3.Connection, job: int, among: Collection[int]) -> list[int]:
    """The items in `among` that belong to the job."""
    query = "SELECT id FROM items WHERE id IN (SELECT value FROM json_each(?)) AND +job_id = ?"
    return [row["id"] for row in connection.execute(query, (json.dumps(list(among)), job))]


def derive(connection: sqlite3.Connection, pipeline: Pipeline, origins: Collection[int], now: float) -> None:
    """Insert an item of `pipeline` for each of these captions, unless it already has one.

    Skips captions that have not passed the stage after which the pipeline starts, or whose job was cancelled.
    """
    spec = PIPELINES[pipeline]
    if spec.starts_after is None:
        raise ValueError(f"{pipeline}: its items are not derived from other items")
    connection.execute(
        "INSERT INTO items (job_id, profile_id, line, source_id, caption, caption_sha, stage, state, attempt,"
        " created_at, updated_at, pipeline, origin)"
        " SELECT items.job_id, items.profile_id, line, source_id, caption, caption_sha, ?, ?, attempt, ?, ?, ?,"
        " items.id FROM json_each(?) AS asked CROSS JOIN items ON items.id = asked.value"
        " JOIN jobs ON jobs.id = items.job_id"
        f" WHERE {beyond(spec.starts_after)} AND {MAY_MOVE}"
        " ON CONFLICT (origin, pipeline) WHERE origin IS NOT NULL DO NOTHING",
        (spec.stages[0], ItemState.READY, now, now, pipeline, json.dumps(list(origins))),
    )


def beyond(stage: Stage) -> str:
    """The SQL condition that an item has passed caption stage `stage`: its own stage is a later one."""
    later = CAPTION_STAGES[CAPTION_STAGES.index(stage) + 1 :]
    return f"items.stage IN ({', '.join(repr(str(each)) for each in later)})"
