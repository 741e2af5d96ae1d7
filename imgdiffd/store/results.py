"""Records results: keeps raw scores, texts and paths, and moves items as `imgdiffd.method.advance` decides."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from imgdiffd.job import ItemState, JobState
from imgdiffd.method.advance import Step, Subject, advance
from imgdiffd.method.filters import Verdict
from imgdiffd.method.messages import (
    Candidate,
    CompareOutput,
    ContrastOutput,
    DescribeOutput,
    GenerateOutput,
    LocateOutput,
    RenderOutput,
    RewriteOutput,
    ScreenOutput,
    StageOutput,
    VetOutput,
)
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal_messages import EraseOutput, FoundBox, InspectOutput
from imgdiffd.pipeline import PIPELINES, Pipeline, Stage, Task, priority_in
from imgdiffd.store.bundles import note_bundle
from imgdiffd.store.erasures import keep_erasures, keep_inspections
from imgdiffd.store.items import derive, parts_by_item
from imgdiffd.store.jobs import complete_jobs
from imgdiffd.store.moves import MAY_MOVE, move_items, pass_on
from imgdiffd.store.previews import keep_previews
from imgdiffd.store.rows import Recorded
from imgdiffd.store.tallies import code_of, count_verdicts, note_timing
from imgdiffd.store.values import dump_boxes, dump_scores, dump_words


def _keep_rewrite(connection: sqlite3.Connection, output: RewriteOutput, subject: Subject, step: Step) -> None:
    verdict = step.parts[0]
    connection.execute(
        "INSERT INTO rewrites VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            output.item,
            subject.attempt,
            output.answer,
            output.truncated,
            output.caption_tokens,
            output.answer_tokens,
            output.seed,
            code_of(verdict),
            verdict.detail,
        ),
    )
    if step.rewritten is not None:
        caption2, nouns1, nouns2 = step.rewritten
        connection.execute(
            "INSERT INTO pairs (item_id, caption2, nouns1, nouns2) VALUES (?, ?, ?, ?)",
            (output.item, caption2, dump_words(nouns1), dump_words(nouns2)),
        )


def _keep_images(connection: sqlite3.Connection, output: GenerateOutput) -> None:
    connection.execute(
        "UPDATE pairs SET image1 = ?, image2 = ?, width = ?, height = ?, seed = ?, scores = ? WHERE item_id = ?",
        (
            output.image1 or "",
            output.image2 or "",
            output.width,
            output.height,
            output.seed,
            dump_scores(output.scores),
            output.item,
        ),
    )


def _keep_judgement(connection: sqlite3.Connection, output: VetOutput) -> None:
    connection.execute(
        "UPDATE pairs SET answer = ?, scores = json_patch(scores, ?) WHERE item_id = ?",
        (output.answer, dump_scores(output.scores), output.item),
    )


def _keep_boxes(connection: sqlite3.Connection, output: LocateOutput | EraseOutput, step: Step) -> None:
    found: Sequence[Candidate | FoundBox] = output.candidates if isinstance(output, LocateOutput) else output.found
    boxes = dump_boxes(
        (each.image, each.box, each.scores, code_of(verdict), verdict.detail)
        for each, verdict in zip(found, step.parts, strict=True)
    )
    connection.execute("INSERT INTO candidates VALUES (?, ?)", (output.item, boxes))


def _keep_regions(connection: sqlite3.Connection, output: LocateOutput, step: Step) -> None:
    connection.executemany(
        "INSERT INTO regions (item_id, number, candidate, image, x1, y1, x2, y2, scores)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (output.item, region.index, region.candidate, region.image, *region.box, dump_scores(region.scores))
            for region in step.regions
        ),
    )


def _keep_verdicts_on_regions(connection: sqlite3.Connection, subject: Subject, step: Step) -> None:
    """Mark the regions that fail in this stage; `subject.regions` are those that passed all earlier ones."""
    connection.executemany(
        "UPDATE regions SET reason = ?, detail = ? WHERE item_id = ? AND number = ?",
        (
            (code_of(verdict), verdict.detail, subject.item, number)
            for number, verdict in zip(subject.regions, step.parts, strict=True)
            if not verdict.passed
        ),
    )


def _keep_descriptions(connection: sqlite3.Connection, output: DescribeOutput, step: Step) -> None:
    left = step.left or {}
    connection.executemany(
        "UPDATE regions SET text1 = ?, text2 = ?, scores = json_patch(scores, ?), left_side = ?"
        " WHERE item_id = ? AND number = ?",
        (
            (each.text1, each.text2, dump_scores(each.scores), left.get(each.index, 0), output.item, each.index)
            for each in output.regions
        ),
    )


def _keep_samples(connection: sqlite3.Connection, output: RenderOutput, job: int, subject: Subject, now: float) -> None:
    connection.executemany(
        "INSERT INTO samples (job_id, item_id, region, left_image, right_image, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (job, output.item, region.index, region.left_image, region.right_image, now)
            for region in output.regions
            if region.index in subject.regions
        ),
    )


def _keep(
    connection: sqlite3.Connection, output: StageOutput, subject: Subject, step: Step, job: int, now: float
) -> None:
    match output:
        case RewriteOutput():
            _keep_rewrite(connection, output, subject, step)
        case GenerateOutput():
            _keep_images(connection, output)
        case CompareOutput():
            connection.execute(
                "UPDATE pairs SET scores = json_patch(scores, ?) WHERE item_id = ?",
                (dump_scores(output.scores), output.item),
            )
        case VetOutput():
            _keep_judgement(connection, output)
        case LocateOutput():
            _keep_boxes(connection, output, step)
            _keep_regions(connection, output, step)
        case DescribeOutput():
            _keep_descriptions(connection, output, step)
            _keep_verdicts_on_regions(connection, subject, step)
        case ContrastOutput():
            connection.executemany(
                "UPDATE regions SET difference = ? WHERE item_id = ? AND number = ?",
                ((region.text, output.item, region.index) for region in output.regions),
            )
            _keep_verdicts_on_regions(connection, subject, step)
        case ScreenOutput():
            connection.executemany(
                "UPDATE regions SET answer = ?, scores = json_patch(scores, ?) WHERE item_id = ? AND number = ?",
                ((each.answer, dump_scores(each.scores), output.item, each.index) for each in output.regions),
            )
            _keep_verdicts_on_regions(connection, subject, step)
        case RenderOutput():
            _keep_samples(connection, output, job, subject, now)
            _keep_verdicts_on_regions(connection, subject, step)
        case EraseOutput():
            _keep_boxes(connection, output, step)
            keep_erasures(connection, output)
        case InspectOutput():
            keep_inspections(connection, output, dict(zip(subject.objects, step.parts, strict=True)), job, now)


_FENCED = (
    "SELECT items.id, coalesce(items.origin, items.id) AS caption_item, items.caption, items.job_id, items.profile_id,"
    " items.attempt, jobs.state AS job_state, jobs.priority, pairs.width, pairs.height"
    " FROM json_each(?) AS batch CROSS JOIN items ON items.id = batch.value JOIN jobs ON jobs.id = items.job_id"
    " LEFT JOIN pairs ON pairs.item_id = coalesce(items.origin, items.id)"
    f" WHERE items.state = 'ready' AND items.stage = ? AND {MAY_MOVE}"
)
_KEPT_REGIONS = (
    "SELECT item_id, number FROM regions WHERE item_id IN (SELECT value FROM json_each(?)) AND reason = ''"
    " ORDER BY item_id, number"
)
_ERASED = (
    "SELECT item_id, image, number FROM erasures WHERE item_id IN (SELECT value FROM json_each(?))"
    " ORDER BY item_id, image, number"
)
# The parts that a stage judges, if an earlier stage found them.
_PARTS: Mapping[Stage, str] = MappingProxyType(
    {
        Stage.DESCRIBE: _KEPT_REGIONS,
        Stage.CONTRAST: _KEPT_REGIONS,
        Stage.SCREEN: _KEPT_REGIONS,
        Stage.RENDER: _KEPT_REGIONS,
        Stage.INSPECT: _ERASED,
    }
)


def _subjects(
    connection: sqlite3.Connection, stage: Stage, attempts: Mapping[int, int]
) -> dict[int, tuple[Subject, sqlite3.Row]]:
    """The batch's items that are still in the stage and attempt that it ran with, by id."""
    items = json.dumps(list(attempts))
    parts = parts_by_item(connection.execute(_PARTS[stage], (items,))) if stage in _PARTS else {}
    return {
        row["id"]: (_subject(row, stage, parts.get(row["id"], ())), row)
        for row in connection.execute(_FENCED, (items, stage)).fetchall()
        if row["attempt"] == attempts[row["id"]]
    }


def _subject(row: sqlite3.Row, stage: Stage, parts: Sequence[sqlite3.Row]) -> Subject:
    regions = () if stage is Stage.INSPECT else tuple(part["number"] for part in parts)
    objects = tuple((part["image"], part["number"]) for part in parts) if stage is Stage.INSPECT else ()
    size = row["width"] or 0, row["height"] or 0
    return Subject(row["id"], stage, row["attempt"], row["caption"], *size, regions, objects)


def _move(connection: sqlite3.Connection, stage: Stage, steps: Iterable[Step], now: float) -> None:
    """Move all items that go the same way with one statement: a statement costs the writer more than a row."""
    ways: dict[tuple[Stage, ItemState, int, str, str], list[int]] = {}
    for step in steps:
        rejected = step.state is ItemState.REJECTED
        reason = (code_of(step.verdict), step.verdict.detail) if rejected else ("", "")
        ways.setdefault((step.stage, step.state, step.attempt, *reason), []).append(step.item)
    for (target, state, attempt, *why), items in ways.items():
        where = "id IN (SELECT value FROM json_each(?)) AND +stage = ?"  # the plus: search by id, not by stage
        values = (json.dumps(items), stage)
        if state is ItemState.READY:
            moved = pass_on(connection, target, attempt, now, where, values)
        else:
            changes = "stage = ?, attempt = ?, reason = ?, detail = ?"
            moved = move_items(connection, state, now, where, values, changes, (target, attempt, *why))
        if moved != len(items):
            raise AssertionError(f"items {items}: only {moved} could move, though this transaction has just read them")


def _captions_of(connection: sqlite3.Connection, items: Collection[int]) -> set[int]:
    """The captions behind these items: each item's origin, or else the item itself."""
    query = "SELECT coalesce(origin, id) FROM items WHERE id IN (SELECT value FROM json_each(?))"
    return {row[0] for row in connection.execute(query, (json.dumps(list(items)),))} if items else set()


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did: the steps taken, in order, with what they were decided about, and the job of each.

    `stale` are the items that had moved on meanwhile, `derived` says whether another pipeline got new items.
    """

    steps: tuple[Step, ...]
    subjects: tuple[Subject, ...]
    rows: tuple[sqlite3.Row, ...]
    stale: tuple[int, ...]
    derived: bool


def apply(
    connection: sqlite3.Connection,
    stage: Stage,
    profile: Profile,
    outputs: Sequence[StageOutput],
    attempts: Mapping[int, int],
    now: float,
    pipelines: Collection[Pipeline],
) -> Applied:
    """Keep outputs and move their items; those whose items have moved on meanwhile are dropped.

    Each of the `pipelines` that starts after this stage gets a new item for every item that passed.
    """
    steps: list[Step] = []
    judged: list[Subject] = []
    rows: list[sqlite3.Row] = []
    parts: list[tuple[int, Verdict]] = []  # each with its job
    subjects = _subjects(connection, stage, {output.item: attempts[output.item] for output in outputs})
    stale = tuple(output.item for output in outputs if output.item not in subjects)
    for output in outputs:
        if output.item not in subjects:
            continue
        subject, row = subjects.pop(output.item)  # a second result for it would be stale
        step = advance(subject, output, profile)
        _keep(connection, output, subject, step, row["job_id"], now)
        steps.append(step)
        judged.append(subject)
        rows.append(row)
        parts += ((row["job_id"], verdict) for verdict in step.parts)
    _move(connection, stage, steps, now)
    passed = [step.item for step in steps if step.verdict.passed]
    begun = [pipeline for pipeline in pipelines if PIPELINES[pipeline].starts_after is stage] if passed else []
    for pipeline in begun:
        derive(connection, pipeline, passed, now)
    count_verdicts(connection, stage, parts)
    return Applied(tuple(steps), tuple(judged), tuple(rows), stale, bool(begun))


def record(
    connection: sqlite3.Connection,
    stage: Stage,
    device: str,
    profile: Profile,
    outputs: Sequence[StageOutput],
    attempts: Mapping[int, int],
    seconds: float,
    now: float,
    pipelines: Collection[Pipeline],
    bundle: str,
    worker: int | None = None,
) -> Recorded:
    """`apply` a batch's outputs as the work of `device` and of the bundle with the id `worker`.

    Previews count for the models of `bundle`.
    """
    done = apply(connection, stage, profile, outputs, attempts, now, pipelines)
    if stage is Stage.COMPARE:
        judged = zip(done.subjects, done.steps, strict=True)
        keep_previews(connection, profile, bundle, [(subject, step.verdict.passed) for subject, step in judged])
    note_timing(connection, stage, device, len(outputs), seconds, now)
    note_bundle(connection, {row["job_id"] for row in done.rows}, worker)
    tasks: list[Task] = []
    ended_in: dict[int, None] = {}
    settled = _captions_of(connection, done.stale)
    for step, row in zip(done.steps, done.rows, strict=True):
        if step.state is not ItemState.READY:
            ended_in[row["job_id"]] = None
            settled.add(row["caption_item"])
        elif row["job_state"] != JobState.PAUSED:
            tasks.append(_task(step, row, profile))
    done_jobs = complete_jobs(connection, ended_in, now)
    finished = tuple(step.item for step in done.steps if step.state is not ItemState.READY)
    late = len(outputs) - len(done.steps)
    return Recorded(tuple(tasks), finished, late, tuple(done_jobs), tuple(sorted(settled)), derived=done.derived)


def _task(step: Step, row: sqlite3.Row, profile: Profile) -> Task:
    priority = priority_in(step.stage, row["priority"])
    return Task(step.item, step.stage, step.attempt, str(row["profile_id"]), priority, 0, profile.open_bytes)
