"""Results coming in: raw scores, texts and paths are kept, and items move as `imgdiffd.advance` decides.

It owns what of a stage's output goes where, and the fence against stale results; it decides nothing itself.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence

from imgdiffd.advance import Step, Subject, advance
from imgdiffd.job import ItemState, JobState
from imgdiffd.message import (
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
from imgdiffd.pipeline import Stage
from imgdiffd.profile import Profile
from imgdiffd.store import removals
from imgdiffd.store.jobs import complete_jobs
from imgdiffd.store.moves import JOB_UNDER_WAY, move_items
from imgdiffd.store.rows import Recorded, TaskRow
from imgdiffd.store.tallies import code_of, count_verdicts, note_timing
from imgdiffd.store.values import dump_scores, dump_words, load_scores


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


def _keep_pictures(connection: sqlite3.Connection, output: GenerateOutput) -> None:
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
    boxes = ",".join(
        f'{{"image":{candidate.image},"box":{json.dumps(candidate.box)},"scores":{dump_scores(candidate.scores)},'
        f'"reason":{json.dumps(code_of(verdict))},"detail":{json.dumps(verdict.detail)}}}'
        for candidate, verdict in zip(output.candidates, step.parts, strict=True)
    )
    connection.execute("INSERT INTO candidates VALUES (?, ?)", (output.item, f"[{boxes}]"))
    connection.executemany(
        "INSERT INTO regions (item_id, number, candidate, image, x1, y1, x2, y2, scores)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (output.item, region.index, region.candidate, region.image, *region.box, dump_scores(region.scores))
            for region in step.regions
        ),
    )


def _keep_verdicts_on_regions(connection: sqlite3.Connection, subject: Subject, step: Step) -> None:
    connection.executemany(
        "UPDATE regions SET reason = ?, detail = ? WHERE item_id = ? AND number = ?",
        (
            (code_of(verdict), verdict.detail, subject.item, number)
            for number, verdict in zip(subject.regions, step.parts, strict=True)
        ),
    )


def _keep_descriptions(connection: sqlite3.Connection, output: DescribeOutput, step: Step) -> None:
    for region in output.regions:
        key = (output.item, region.index)
        row = connection.execute("SELECT scores FROM regions WHERE item_id = ? AND number = ?", key).fetchone()
        if row is None:
            continue
        scores = dump_scores({**load_scores(row["scores"]), **region.scores})
        left = (step.left or {}).get(region.index, 0)
        connection.execute(
            "UPDATE regions SET text1 = ?, text2 = ?, scores = ?, left_side = ? WHERE item_id = ? AND number = ?",
            (region.text1, region.text2, scores, left, *key),
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
            _keep_pictures(connection, output)
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
    "SELECT items.id, items.caption, items.job_id, items.profile_id, items.crashes, jobs.state AS job_state,"
    " jobs.priority, pairs.width, pairs.height"
    " FROM items JOIN jobs ON jobs.id = items.job_id LEFT JOIN pairs ON pairs.item_id = items.id"
    " WHERE items.id = ? AND items.state = 'ready' AND items.stage = ? AND items.attempt = ?"
    f" AND {JOB_UNDER_WAY}"
)


def _subject(connection: sqlite3.Connection, row: sqlite3.Row, stage: Stage, attempt: int) -> Subject:
    regions = connection.execute(
        "SELECT number FROM regions WHERE item_id = ? AND reason = '' ORDER BY number", (row["id"],)
    ).fetchall()
    numbers = tuple(int(region["number"]) for region in regions)
    return Subject(row["id"], stage, attempt, row["caption"], row["width"] or 0, row["height"] or 0, numbers)


def _move(connection: sqlite3.Connection, subject: Subject, step: Step, now: float) -> None:
    ended = step.state is not ItemState.READY
    rejected = step.state is ItemState.REJECTED
    moved = move_items(
        connection,
        step.state,
        now,
        "id = ? AND state = 'ready' AND stage = ? AND attempt = ?",
        (subject.item, subject.stage, subject.attempt),
        "stage = ?, attempt = ?, reason = ?, detail = ?" + ("" if ended else ", crashes = 0"),
        (
            step.stage,
            step.attempt,
            code_of(step.verdict) if rejected else "",
            step.verdict.detail if rejected else "",
        ),
    )
    if moved != 1:
        raise AssertionError(f"item {subject.item} moved under its own transaction")


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

    With `removal`, a pair that passes the similarity gate also waits for things to be removed from it.
    """
    tasks: list[TaskRow] = []
    finished: list[int] = []
    ended_in: dict[int, None] = {}
    stale = 0
    for output in outputs:
        attempt = attempts[output.item]
        row = connection.execute(_FENCED, (output.item, stage, attempt)).fetchone()
        if row is None:
            stale += 1
            continue
        subject = _subject(connection, row, stage, attempt)
        step = advance(subject, output, profile)
        _keep(connection, output, subject, step, row["job_id"], now)
        _move(connection, subject, step, now)
        if removal and stage is Stage.COMPARE and step.verdict.passed:
            removals.create(connection, step.item, row["job_id"], attempt, now)
        count_verdicts(connection, row["job_id"], stage, step.parts)
        if step.state is not ItemState.READY:
            finished.append(step.item)
            ended_in[row["job_id"]] = None
        elif row["job_state"] == JobState.ACTIVE:
            group = str(row["profile_id"])
            tasks.append(TaskRow(step.item, step.stage, step.attempt, group, row["priority"], 0))
    note_timing(connection, stage, device, len(outputs), seconds, now)
    done_jobs = complete_jobs(connection, ended_in, now)
    return Recorded(tuple(tasks), tuple(finished), stale, tuple(done_jobs))
