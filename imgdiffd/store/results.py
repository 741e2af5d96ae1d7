"""Results coming in: raw scores, texts and paths are kept, and items move as `imgdiffd.method.advance` decides.

It owns what of a stage's output goes where, and the fence against stale results; it decides nothing itself.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from imgdiffd.job import ItemState, JobState
from imgdiffd.method.advance import Step, Subject, advance
from imgdiffd.method.filters import Verdict
from imgdiffd.method.messages import (
    CompareOutput,
    ContrastOutput,
    DescribeOutput,
    GenerateOutput,
    LocateOutput,
    RenderOutput,
    RewriteOutput,
    StageOutput,
    VetOutput,
)
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import DEPTH, Stage
from imgdiffd.store import removals
from imgdiffd.store.jobs import complete_jobs
from imgdiffd.store.moves import JOB_UNDER_WAY, move_items, pass_on
from imgdiffd.store.rows import Recorded, TaskRow
from imgdiffd.store.tallies import code_of, count_verdicts, note_timing
from imgdiffd.store.values import dump_boxes, dump_scores, dump_words, load_scores


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
        "UPDATE pairs SET image1 = ?, image2 = ?, width = ?, height = ?, seed = ? WHERE item_id = ?",
        (output.image1, output.image2, output.width, output.height, output.seed, output.item),
    )


def _keep_judgement(connection: sqlite3.Connection, output: VetOutput) -> None:
    row = connection.execute("SELECT scores FROM pairs WHERE item_id = ?", (output.item,)).fetchone()
    scores = dump_scores({**load_scores(row["scores"]), **output.scores})
    connection.execute(
        "UPDATE pairs SET answer = ?, scores = ? WHERE item_id = ?", (output.answer, scores, output.item)
    )


def _keep_boxes(connection: sqlite3.Connection, output: LocateOutput, step: Step) -> None:
    boxes = dump_boxes(
        (candidate.image, candidate.box, candidate.scores, code_of(verdict), verdict.detail)
        for candidate, verdict in zip(output.candidates, step.parts, strict=True)
    )
    connection.execute("INSERT INTO candidates VALUES (?, ?)", (output.item, boxes))
    connection.executemany(
        "INSERT INTO regions (item_id, number, candidate, image, x1, y1, x2, y2, scores)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (output.item, region.index, region.candidate, region.image, *region.box, dump_scores(region.scores))
            for region in step.regions
        ),
    )


def _keep_verdicts_on_regions(connection: sqlite3.Connection, subject: Subject, step: Step) -> None:
    """Of those that fall out here; the subject's regions are those that nothing was held against."""
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
                "UPDATE pairs SET scores = ? WHERE item_id = ?", (dump_scores(output.scores), output.item)
            )
        case VetOutput():
            _keep_judgement(connection, output)
        case LocateOutput():
            _keep_boxes(connection, output, step)
        case DescribeOutput():
            _keep_descriptions(connection, output, step)
            _keep_verdicts_on_regions(connection, subject, step)
        case ContrastOutput():
            connection.executemany(
                "UPDATE regions SET difference = ? WHERE item_id = ? AND number = ?",
                ((region.text, output.item, region.index) for region in output.regions),
            )
            _keep_verdicts_on_regions(connection, subject, step)
        case RenderOutput():
            _keep_samples(connection, output, job, subject, now)
            _keep_verdicts_on_regions(connection, subject, step)


_FENCED = (
    "SELECT items.id, items.caption, items.job_id, items.profile_id, items.attempt, jobs.state AS job_state,"
    " jobs.priority, pairs.width, pairs.height"
    " FROM json_each(?) AS batch CROSS JOIN items ON items.id = batch.value JOIN jobs ON jobs.id = items.job_id"
    " LEFT JOIN pairs ON pairs.item_id = items.id"
    f" WHERE items.state = 'ready' AND items.stage = ? AND {JOB_UNDER_WAY}"
)
_KEPT_REGIONS = (
    "SELECT item_id, number FROM regions WHERE item_id IN (SELECT value FROM json_each(?)) AND reason = ''"
    " ORDER BY item_id, number"
)


def _subjects(
    connection: sqlite3.Connection, stage: Stage, attempts: Mapping[int, int]
) -> dict[int, tuple[Subject, sqlite3.Row]]:
    """Those of the batch that are still where it found them, by item."""
    items = json.dumps(list(attempts))
    regions: dict[int, list[int]] = {}
    if DEPTH[stage] > DEPTH[Stage.LOCATE]:  # which finds them
        for item, number in connection.execute(_KEPT_REGIONS, (items,)).fetchall():
            regions.setdefault(item, []).append(number)
    return {
        row["id"]: (_subject(row, stage, tuple(regions.get(row["id"], ()))), row)
        for row in connection.execute(_FENCED, (items, stage)).fetchall()
        if row["attempt"] == attempts[row["id"]]
    }


def _subject(row: sqlite3.Row, stage: Stage, regions: tuple[int, ...]) -> Subject:
    return Subject(row["id"], stage, row["attempt"], row["caption"], row["width"] or 0, row["height"] or 0, regions)


def _move(connection: sqlite3.Connection, stage: Stage, steps: Iterable[Step], now: float) -> None:
    """All items that go the same way with one statement: each costs the writer's thread more than the row."""
    ways: dict[tuple[Stage, ItemState, int, str, str], list[int]] = {}
    for step in steps:
        rejected = step.state is ItemState.REJECTED
        reason = (code_of(step.verdict), step.verdict.detail) if rejected else ("", "")
        ways.setdefault((step.stage, step.state, step.attempt, *reason), []).append(step.item)
    for (target, state, attempt, *why), items in ways.items():
        where = "id IN (SELECT value FROM json_each(?)) AND +stage = ?"  # the plus: by number, not by the index
        values = (json.dumps(items), stage)
        if state is ItemState.READY:
            moved = pass_on(connection, target, attempt, now, where, values)
        else:
            changes = "stage = ?, attempt = ?, reason = ?, detail = ?"
            moved = move_items(connection, state, now, where, values, changes, (target, attempt, *why))
        if moved != len(items):
            raise AssertionError(f"items {items} moved under their own transaction")


def record(
    connection: sqlite3.Connection,
    stage: Stage,
    device: str,
    profile: Profile,
    outputs: Sequence[StageOutput],
    attempts: Mapping[int, int],
    seconds: float,
    now: float,
    *,
    removal: bool = False,
) -> Recorded:
    """Keep a batch's outputs and move its items. A result whose item is elsewhere by now is dropped and counted.

    With `removal`, a pair that passes the similarity gate also waits for objects to be removed from it.
    """
    tasks: list[TaskRow] = []
    steps: list[Step] = []
    parts: list[tuple[int, Verdict]] = []  # with their job
    ended_in: dict[int, None] = {}
    subjects = _subjects(connection, stage, {output.item: attempts[output.item] for output in outputs})
    for output in outputs:
        if output.item not in subjects:
            continue
        subject, row = subjects.pop(output.item)  # its second result would be stale
        step = advance(subject, output, profile)
        _keep(connection, output, subject, step, row["job_id"], now)
        if removal and stage is Stage.COMPARE and step.verdict.passed:
            removals.create(connection, step.item, row["job_id"], subject.attempt, now)
        steps.append(step)
        parts += ((row["job_id"], verdict) for verdict in step.parts)
        if step.state is not ItemState.READY:
            ended_in[row["job_id"]] = None
        elif row["job_state"] == JobState.ACTIVE:
            group = str(row["profile_id"])
            tasks.append(TaskRow(step.item, step.stage, step.attempt, group, row["priority"], 0))
    _move(connection, stage, steps, now)
    count_verdicts(connection, stage, parts)
    note_timing(connection, stage, device, len(outputs), seconds, now)
    done_jobs = complete_jobs(connection, ended_in, now)
    finished = tuple(step.item for step in steps if step.state is not ItemState.READY)
    return Recorded(tuple(tasks), finished, len(outputs) - len(steps), tuple(done_jobs))
