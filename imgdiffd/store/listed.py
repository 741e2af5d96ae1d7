"""The samples and items of a list as records, once it is known which ones are on its page."""

import json
import sqlite3
from collections.abc import Iterator, Sequence

from imgdiffd.job import ItemState
from imgdiffd.method.identity import stored_key
from imgdiffd.method.messages import CLIP_IMAGE_COSINE
from imgdiffd.method.removal_messages import NO_COSINE
from imgdiffd.method.score_names import all_scores
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.store.erasures import removal_sample_of
from imgdiffd.store.found import ListedItem, ListedSample
from imgdiffd.store.values import KNOWN_AS, box_of, load_scores, load_words, of_row

_TABLE = {Pipeline.REPLACEMENT: "samples", Pipeline.REMOVAL: "removal_samples"}
_SAMPLES = {
    Pipeline.REPLACEMENT: "SELECT samples.id, samples.job_id AS job, samples.item_id AS item, samples.left_image,"
    " samples.right_image, samples.created_at, profiles.name AS profile,"
    f" profiles.json AS profile_json, {KNOWN_AS} AS known_as, items.caption, pairs.caption2, pairs.nouns1,"
    " pairs.nouns2, pairs.width, pairs.height, pairs.scores AS pair_scores, regions.image, regions.number, regions.x1,"
    " regions.y1, regions.x2, regions.y2, regions.scores, regions.text1, regions.text2, regions.left_side,"
    " regions.difference",
    Pipeline.REMOVAL: "SELECT removal_samples.id, removal_samples.job_id AS job, items.origin AS item,"
    " removal_samples.created_at, profiles.name AS profile,"
    f" profiles.json AS profile_json, {KNOWN_AS} AS known_as, items.caption, pairs.caption2, pairs.nouns1,"
    " pairs.nouns2, pairs.scores AS pair_scores, erasures.*",
}


def samples_of(
    connection: sqlite3.Connection, kind: Pipeline, tables: str, wanted: Sequence[int]
) -> Iterator[ListedSample]:
    """The samples of one kind with these numbers, in any order; `tables` are all that tell of them, joined."""
    rows = connection.execute(
        f"{_SAMPLES[kind]} FROM json_each(?) AS asked CROSS JOIN {tables}"
        f" JOIN profiles ON profiles.id = items.profile_id WHERE {_TABLE[kind]}.id = asked.value",
        (json.dumps(wanted),),
    )
    return map(_replacement if kind is Pipeline.REPLACEMENT else _removal, rows)


def _listed(row: sqlite3.Row, **given: object) -> ListedSample:
    nouns1, nouns2 = load_words(row["nouns1"]), load_words(row["nouns2"])
    return of_row(ListedSample, row, nouns1=nouns1, nouns2=nouns2, box=box_of(row), **given)


def _replacement(row: sqlite3.Row) -> ListedSample:
    left, right = (row["text1"], row["text2"]) if row["left_side"] == 1 else (row["text2"], row["text1"])
    return _listed(
        row,
        key=stored_key(row["profile_json"], row["known_as"], Pipeline.REPLACEMENT, row["number"]),
        kind=Pipeline.REPLACEMENT,
        left_text=left,
        right_text=right,
        answer=row["difference"],
        scores=all_scores(load_scores(row["pair_scores"]), load_scores(row["scores"])),
    )


def _removal(row: sqlite3.Row) -> ListedSample:
    sample = removal_sample_of(row, row["item"])
    on_left = sample.holder == "left"
    cosine = {} if row["cosine"] == NO_COSINE else {CLIP_IMAGE_COSINE: row["cosine"]}
    return _listed(
        row,
        key=sample.key,
        kind=Pipeline.REMOVAL,
        width=row["size_px"],
        height=row["size_px"],
        left_image=sample.left,
        right_image=sample.right,
        left_text=sample.caption if on_left else "",
        right_text="" if on_left else sample.caption,
        answer=sample.answer,
        scores=all_scores(load_scores(row["pair_scores"]), {**cosine, **load_scores(row["scores"])}),
    )


_ITEMS = """
    SELECT items.*, items.job_id AS job, items.id AS item, coalesce(items.origin, items.id) AS caption_item,
        profiles.name AS profile, coalesce(pairs.caption2, '') AS caption2, coalesce(pairs.nouns1, '[]') AS nouns1,
        coalesce(pairs.nouns2, '[]') AS nouns2, coalesce(pairs.image1, '') AS image1,
        coalesce(pairs.image2, '') AS image2, coalesce(pairs.scores, '{}') AS scores,
        (SELECT count(*) FROM samples WHERE samples.item_id = items.id)
            + (SELECT count(*) FROM removal_samples WHERE removal_samples.item_id = items.id) AS samples
    FROM json_each(?) AS asked CROSS JOIN items ON items.id = asked.value
    JOIN profiles ON profiles.id = items.profile_id
    LEFT JOIN pairs ON pairs.item_id = coalesce(items.origin, items.id)
"""


def items_of(connection: sqlite3.Connection, wanted: Sequence[int]) -> Iterator[ListedItem]:
    """The items with these numbers, in any order."""
    for row in connection.execute(_ITEMS, (json.dumps(wanted),)):
        yield of_row(
            ListedItem,
            row,
            kind=Pipeline(row["pipeline"]),
            nouns1=load_words(row["nouns1"]),
            nouns2=load_words(row["nouns2"]),
            stage=Stage(row["stage"]),
            state=ItemState(row["state"]),
            scores=all_scores(load_scores(row["scores"]), {}),
        )
