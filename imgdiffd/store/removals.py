"""The pairs that object removal goes through, beside their captions: taken, recorded, quarantined, cancelled, retried.

It owns these statements and the fence against stale results; what a result means is decided in `method.removal`. To
the scheduler such a pair is its item's number negated, since a caption's stages may be under way at the same time.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice

from imgdiffd.job import ItemState, JobState
from imgdiffd.method.filters import Verdict
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal import RemovalStep, after_erase, after_inspect
from imgdiffd.method.removal_messages import EraseInput, EraseOutput, Erasure, InspectInput, InspectOutput
from imgdiffd.pipeline import CAPTION_STAGES, DEPTH, Stage
from imgdiffd.store.jobs import CANCEL_CHUNK
from imgdiffd.store.moves import move_removals
from imgdiffd.store.rows import Recorded, TaskRow
from imgdiffd.store.tallies import code_of, count_verdicts, note_timing
from imgdiffd.store.values import dump_boxes, dump_scores

REMOVAL_PRIORITY = -1_000_000  # of its tasks: behind every caption, those of background jobs too
ADOPT_CHUNK = 5000  # items in one operation
BEYOND_THE_GATE = ", ".join(f"'{stage}'" for stage in CAPTION_STAGES if DEPTH[stage] > DEPTH[Stage.COMPARE])
_OFFERED = "jobs.state IN ('active', 'done')"  # a job ends with its captions, not with what is removed from its pairs
_RECORDED = "jobs.state IN ('active', 'paused', 'done')"


def create(connection: sqlite3.Connection, item: int, job: int, attempt: int, now: float) -> None:
    """The pair of `item` has passed the similarity gate: objects are to be removed from it, some time."""
    connection.execute(
        "INSERT INTO removals (item_id, job_id, attempt, stage, state, created_at, updated_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (item, job, attempt, Stage.ERASE, ItemState.READY, now, now),
    )


def backfill(connection: sqlite3.Connection, items: Collection[int], now: float) -> None:
    """As `create`, of those of `items` whose pairs passed while there was no removal."""
    connection.execute(
        "INSERT INTO removals (item_id, job_id, attempt, stage, state, created_at, updated_at)"
        " SELECT items.id, items.job_id, items.attempt, ?, ?, ?, ? FROM items JOIN jobs ON jobs.id = items.job_id"
        f" WHERE items.id IN (SELECT value FROM json_each(?)) AND items.stage IN ({BEYOND_THE_GATE}) AND {_RECORDED}"
        " AND NOT EXISTS (SELECT 1 FROM removals WHERE removals.item_id = items.id)",
        (Stage.ERASE, ItemState.READY, now, now, json.dumps(list(items))),
    )


def ready_tasks(connection: sqlite3.Connection, room: int, held: Collection[int]) -> list[TaskRow]:
    """At most `room` READY removals whose task is not `held`: inspect first, then by the job's priority and age."""
    waiting = (task for stage in (Stage.INSPECT, Stage.ERASE) for task in _ready_in(connection, stage))
    return list(islice((task for task in waiting if task.item not in held), room))


def _ready_in(connection: sqlite3.Connection, stage: Stage) -> Iterator[TaskRow]:
    """Lazily, so that a caller who takes a few reads a few."""
    jobs = connection.execute(
        "SELECT jobs.id, jobs.profile_id FROM removal_counts AS c JOIN jobs ON jobs.id = c.job_id"
        f" WHERE c.stage = ? AND c.state = 'ready' AND c.n > 0 AND {_OFFERED} ORDER BY jobs.priority DESC, jobs.id",
        (stage,),
    ).fetchall()
    for job in jobs:
        for row in connection.execute(
            "SELECT item_id, attempt, crashes FROM removals INDEXED BY removals_ready"
            " WHERE stage = ? AND job_id = ? AND state = 'ready' ORDER BY item_id",
            (stage, job["id"]),
        ):
            group = str(job["profile_id"])
            yield TaskRow(-row["item_id"], stage, row["attempt"], group, REMOVAL_PRIORITY, row["crashes"])


def stage_inputs(connection: sqlite3.Connection, stage: Stage, tasks: Sequence[int]) -> list[StageInput]:
    """What `stage` needs of each removal, in order; those that are no longer READY in it are left out."""
    inputs: list[StageInput] = []
    for task in tasks:
        row = connection.execute(
            "SELECT removals.item_id, removals.attempt, items.caption, pairs.image1, pairs.image2 FROM removals"
            " JOIN jobs ON jobs.id = removals.job_id JOIN items ON items.id = removals.item_id"
            " JOIN pairs ON pairs.item_id = removals.item_id"
            f" WHERE removals.item_id = ? AND removals.stage = ? AND removals.state = 'ready' AND {_RECORDED}",
            (-task, stage),
        ).fetchone()
        if row is None:
            continue
        if stage is Stage.ERASE:
            inputs.append(EraseInput(-task, row["image1"], row["image2"], row["caption"], row["attempt"]))
        else:
            inputs.append(InspectInput(-task, tuple(map(erasure_of, erasures_of(connection, -task)))))
    return inputs


def erasures_of(connection: sqlite3.Connection, item: int) -> list[sqlite3.Row]:
    """The rows of what was taken out of the pair of `item`, in order."""
    return connection.execute("SELECT * FROM erasures WHERE item_id = ? ORDER BY image, number", (item,)).fetchall()


def erasure_of(row: sqlite3.Row) -> Erasure:
    """The record that a row of `erasures` keeps."""
    box = (row["x1"], row["y1"], row["x2"], row["y2"])
    return Erasure(
        row["item_id"],
        row["image"],
        row["number"],
        box,
        row["size_px"],
        row["cosine"],
        row["source"],
        row["erased"],
        row["seed"],
    )


def record(
    connection: sqlite3.Connection,
    stage: Stage,
    device: str,
    profile: Profile,
    outputs: Sequence[StageOutput],
    attempts: Mapping[int, int],
    seconds: float,
    now: float,
) -> Recorded:
    """Keep a batch's outputs and move its removals. A result whose removal is elsewhere by now is dropped and counted.

    `attempts` are by task. Raises ValueError where an output is a caption's.
    """
    tasks: list[TaskRow] = []
    finished: list[int] = []
    stale = 0
    for output in outputs:
        row = connection.execute(
            "SELECT removals.job_id, jobs.profile_id, jobs.state AS job_state FROM removals"
            " JOIN jobs ON jobs.id = removals.job_id WHERE removals.item_id = ? AND removals.stage = ?"
            f" AND removals.attempt = ? AND removals.state = 'ready' AND {_RECORDED}",
            (output.item, stage, attempts[-output.item]),
        ).fetchone()
        if row is None:
            stale += 1
            continue
        step = _keep(connection, output, profile)
        _move(connection, output.item, step, now)
        count_verdicts(connection, stage, ((row["job_id"], verdict) for verdict in step.parts))
        if step.state is not ItemState.READY:
            finished.append(-output.item)
        elif row["job_state"] != JobState.PAUSED:
            group, attempt = str(row["profile_id"]), attempts[-output.item]
            tasks.append(TaskRow(-output.item, step.stage, attempt, group, REMOVAL_PRIORITY, 0))
    note_timing(connection, stage, device, len(outputs), seconds, now)
    return Recorded(tuple(tasks), tuple(finished), stale, ())


def _keep(connection: sqlite3.Connection, output: StageOutput, profile: Profile) -> RemovalStep:
    match output:
        case EraseOutput():
            step = after_erase(output, profile)
            _keep_erasures(connection, output, step)
        case InspectOutput():
            objects = [(row["image"], row["number"]) for row in erasures_of(connection, output.item)]
            step = after_inspect(objects, output, profile)
            _keep_inspected(connection, output, dict(zip(objects, step.parts, strict=True)))
        case _:
            raise ValueError(f"item {output.item}: {output.kind} is no stage of object removal")
    return step


def _keep_erasures(connection: sqlite3.Connection, output: EraseOutput, step: RemovalStep) -> None:
    boxes = dump_boxes(
        (each.image, each.box, each.scores, code_of(verdict), verdict.detail)
        for each, verdict in zip(output.found, step.parts, strict=True)
    )
    connection.execute("UPDATE removals SET boxes = ? WHERE item_id = ?", (boxes, output.item))
    connection.executemany(
        "INSERT INTO erasures (item_id, image, number, x1, y1, x2, y2, size_px, cosine, source, erased, seed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (*key, *each.box, each.size_px, each.cosine, each.source, each.erased, each.seed)
            for each in output.erasures
            for key in [(output.item, each.image, each.index)]
        ),
    )


def _keep_inspected(
    connection: sqlite3.Connection, output: InspectOutput, verdicts: Mapping[tuple[int, int], Verdict]
) -> None:
    told = {(each.image, each.index): each for each in output.objects}
    for obj, verdict in verdicts.items():
        key = (code_of(verdict), verdict.detail, output.item, *obj)
        connection.execute(
            "UPDATE erasures SET reason = ?, detail = ? WHERE item_id = ? AND image = ? AND number = ?", key
        )
        if each := told.get(obj):
            images = (each.with_image, each.without_image) if verdict.passed else ("", "")
            connection.execute(
                "UPDATE erasures SET text = ?, scores = ?, with_image = ?, without_image = ?"
                " WHERE item_id = ? AND image = ? AND number = ?",
                (each.text, dump_scores(each.scores), *images, output.item, *obj),
            )


def _move(connection: sqlite3.Connection, item: int, step: RemovalStep, now: float) -> None:
    rejected = step.state is ItemState.REJECTED
    moved = move_removals(
        connection,
        step.state,
        now,
        "item_id = ?",
        (item,),
        "stage = ?, reason = ?, detail = ?" + (", crashes = 0" if step.state is ItemState.READY else ""),
        (step.stage, code_of(step.verdict) if rejected else "", step.verdict.detail if rejected else ""),
    )
    if moved != 1:
        raise AssertionError(f"the removal of item {item} moved under its own transaction")


def record_crashes(connection: sqlite3.Connection, tasks: Collection[int], now: float) -> None:
    """Count one more crash against each of the removals that is READY."""
    for task in tasks:
        where = "item_id = ? AND state = 'ready'"
        move_removals(connection, ItemState.READY, now, where, (-task,), "crashes = crashes + 1")


def quarantine(connection: sqlite3.Connection, task: int, reason: str, detail: str, now: float) -> bool:
    """The removal is FAILED; its caption goes on. False where it is no longer READY."""
    changes = "reason = ?, detail = ?"
    return move_removals(connection, ItemState.FAILED, now, "item_id = ?", (-task,), changes, (reason, detail)) > 0


def cancel_leftovers(connection: sqlite3.Connection, now: float) -> int:
    """Cancel some READY removals of jobs that are CANCELLED or FAILED; returns how many, 0 when none is left."""
    chunk = (
        "item_id IN (SELECT r.item_id FROM removal_counts AS c JOIN jobs ON jobs.id = c.job_id"
        " JOIN removals AS r ON r.job_id = c.job_id AND r.state = 'ready'"
        " WHERE c.state = 'ready' AND c.n > 0 AND jobs.state IN (?, ?) LIMIT ?)"
    )
    values = (JobState.CANCELLED, JobState.FAILED, CANCEL_CHUNK)
    return move_removals(connection, ItemState.CANCELLED, now, chunk, values)


def abandon(connection: sqlite3.Connection, job: int, now: float) -> int:
    """Cancel some READY removals of the job if that is DONE; returns how many, 0 when none is left."""
    chunk = (
        "item_id IN (SELECT r.item_id FROM removals AS r JOIN jobs ON jobs.id = r.job_id"
        " WHERE r.job_id = ? AND r.state = 'ready' AND jobs.state = 'done' LIMIT ?)"
    )
    return move_removals(connection, ItemState.CANCELLED, now, chunk, (job, CANCEL_CHUNK))


def retry(connection: sqlite3.Connection, job: int | None, reason: str | None, now: float) -> int:
    """Make FAILED removals READY again, of one job or reason where given; returns how many."""
    where = (
        "state = 'failed' AND job_id = coalesce(?, job_id) AND reason = coalesce(?, reason)"
        " AND job_id IN (SELECT id FROM jobs WHERE state IN ('active', 'paused', 'done'))"
    )
    return move_removals(
        connection, ItemState.READY, now, where, (job, reason), "crashes = 0, reason = '', detail = ''"
    )
