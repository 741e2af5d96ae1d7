"""Objects erased from images: what object removal found, and the samples it made."""

import sqlite3
from collections.abc import Mapping

from imgdiffd.job import ItemState
from imgdiffd.method.filters import Verdict
from imgdiffd.method.identity import stored_key
from imgdiffd.method.removal import RemovalSample, holder_of
from imgdiffd.method.removal_messages import EraseOutput, Erasure, InspectOutput
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.store.stories import (
    CandidateRow,
    ErasureRow,
    RemovalRow,
    RemovalSampleRow,
    RemovalStory,
)
from imgdiffd.store.tallies import code_of
from imgdiffd.store.values import BAR_PX, KNOWN_AS, box_of, dump_scores, load_boxes, load_scores, load_words, of_row


def erasure_of(row: sqlite3.Row, item: int) -> Erasure:
    """The record of a row of `erasures`, assigned to `item`."""
    return of_row(Erasure, row, item=item, index=row["number"], box=box_of(row))


def keep_erasures(connection: sqlite3.Connection, output: EraseOutput) -> None:
    """Insert the erased objects."""
    connection.executemany(
        "INSERT INTO erasures (item_id, image, number, x1, y1, x2, y2, size_px, cosine, source, erased, seed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (*key, *each.box, each.size_px, each.cosine, each.source, each.erased, each.seed)
            for each in output.erasures
            for key in [(output.item, each.image, each.index)]
        ),
    )


def keep_inspections(
    connection: sqlite3.Connection,
    output: InspectOutput,
    verdicts: Mapping[tuple[int, int], Verdict],
    job: int,
    now: float,
) -> None:
    """Update the erasures with `verdicts`, keyed by image and number, and with the stage's texts, scores and images.

    Those that passed are samples from now on.
    """
    told = {(each.image, each.index): each for each in output.objects}
    for key, verdict in verdicts.items():
        connection.execute(
            "UPDATE erasures SET reason = ?, detail = ? WHERE item_id = ? AND image = ? AND number = ?",
            (code_of(verdict), verdict.detail, output.item, *key),
        )
        if each := told.get(key):
            images = (each.with_image, each.without_image) if verdict.passed else ("", "")
            connection.execute(
                "UPDATE erasures SET text = ?, scores = ?, with_image = ?, without_image = ?"
                " WHERE item_id = ? AND image = ? AND number = ?",
                (each.text, dump_scores(each.scores), *images, output.item, *key),
            )
            if verdict.passed:
                connection.execute(
                    "INSERT INTO removal_samples (job_id, item_id, image, number, created_at) VALUES (?, ?, ?, ?, ?)",
                    (job, output.item, *key, now),
                )


def removal_sample_of(row: sqlite3.Row, origin: int) -> RemovalSample:
    """The sample of a row of `erasures` that has `known_as` and `profile_json` of its item, of caption `origin`."""
    erasure = erasure_of(row, origin)
    key = stored_key(row["profile_json"], row["known_as"], Pipeline.REMOVAL, erasure.image, erasure.index)
    return RemovalSample(erasure, row["text"], holder_of(erasure), row["with_image"], row["without_image"], key)


_ERASURES = f"""
    SELECT erasures.*, {KNOWN_AS} AS known_as, profiles.json AS profile_json
    FROM erasures JOIN items ON items.id = erasures.item_id JOIN profiles ON profiles.id = items.profile_id
"""


def _rows(connection: sqlite3.Connection, item: int) -> list[sqlite3.Row]:
    query = f"{_ERASURES} WHERE erasures.item_id = ? ORDER BY image, number"
    return connection.execute(query, (item,)).fetchall()


def removal_samples(
    connection: sqlite3.Connection, job: int, after: int, limit: int
) -> list[tuple[int, list[RemovalRow]]]:
    """The job's next `limit` captions above item `after` that have removal samples, in order, each with its samples."""
    derived = connection.execute(
        "SELECT items.id, origin, items.job_id AS job, profiles.name AS profile, items.caption AS caption1,"
        " items.source_id, caption2, nouns1, nouns2, scores,"
        f" {BAR_PX} AS bar_px FROM items"
        " JOIN profiles ON profiles.id = items.profile_id"
        " JOIN pairs ON pairs.item_id = items.origin WHERE items.job_id = ? AND origin > ?"
        " AND pipeline = 'removal' AND state = 'sampled' ORDER BY origin LIMIT ?",
        (job, after, limit),
    ).fetchall()
    return [
        (pair["origin"], [_removal(pair, row) for row in _rows(connection, pair["id"]) if row["with_image"]])
        for pair in derived
    ]


def _removal(pair: sqlite3.Row, row: sqlite3.Row) -> RemovalRow:
    return of_row(
        RemovalRow,
        pair,
        nouns1=load_words(pair["nouns1"]),
        nouns2=load_words(pair["nouns2"]),
        pair_scores=load_scores(pair["scores"]),
        scores=load_scores(row["scores"]),
        sample=removal_sample_of(row, pair["origin"]),
    )


_BY_NUMBER = f"""
    SELECT removal_samples.id AS sample_id, removal_samples.job_id AS sample_job,
        removal_samples.created_at AS sampled_at, items.origin, {KNOWN_AS} AS known_as,
        profiles.json AS profile_json, erasures.*
    FROM removal_samples JOIN items ON items.id = removal_samples.item_id
    JOIN erasures USING (item_id, image, number) JOIN profiles ON profiles.id = items.profile_id
"""


def list_removal_samples(
    connection: sqlite3.Connection, job: int | None, after: int, limit: int
) -> list[RemovalSampleRow]:
    """The next `limit` removal samples with ids above `after`, in the order in which they were recorded."""
    only = "" if job is None else " AND removal_samples.job_id = ?"
    values = (after, limit) if job is None else (after, job, limit)
    rows = connection.execute(
        f"{_BY_NUMBER} WHERE removal_samples.id > ?{only} ORDER BY removal_samples.id LIMIT ?", values
    )
    return [
        RemovalSampleRow(row["sample_id"], row["sample_job"], removal_sample_of(row, row["origin"]), row["sampled_at"])
        for row in rows
    ]


def newest_removal_sample(connection: sqlite3.Connection) -> int:
    """The highest id of a removal sample ever given, or 0; that sample may be deleted since."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'removal_samples'").fetchone()
    return 0 if row is None else int(row[0])


def removal_story(connection: sqlite3.Connection, origin: int) -> RemovalStory | None:
    """Everything known about the object removal of this caption's pair; None if it never began."""
    row = connection.execute("SELECT * FROM items WHERE origin = ? AND pipeline = 'removal'", (origin,)).fetchone()
    if row is None:
        return None
    return of_row(
        RemovalStory,
        row,
        item=row["id"],
        stage=Stage(row["stage"]),
        state=ItemState(row["state"]),
        found=candidates(connection, row["id"]),
        erasures=tuple(_erasure(each, origin) for each in _rows(connection, row["id"])),
    )


def _erasure(row: sqlite3.Row, origin: int) -> ErasureRow:
    sample, scores = removal_sample_of(row, origin), load_scores(row["scores"])
    return of_row(ErasureRow, row, erasure=sample.erasure, scores=scores, holder=sample.holder, letter=sample.answer)


def candidates(connection: sqlite3.Connection, item: int) -> tuple[CandidateRow, ...]:
    """Every box found for the item."""
    row = connection.execute("SELECT boxes FROM candidates WHERE item_id = ?", (item,)).fetchone()
    return () if row is None else tuple(CandidateRow(*each) for each in load_boxes(row["boxes"]))
