"""Everything that filters judge, as it is stored, and marks that tell whether any of it has changed."""

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.method.messages import RewriteOutput, Scores
from imgdiffd.pipeline import Stage
from imgdiffd.store.items import parts_by_item
from imgdiffd.store.values import MADE_HERE, load_boxes, load_scores, load_words

FoundBoxes = Sequence[tuple[int, tuple[int, int, int, int], Scores, str, str]]  # image, box, scores, reason, detail


@dataclass(frozen=True, slots=True)
class ItemMark:
    """A caption's own row. Two equal marks mean that nothing else of the caption has changed in between."""

    item: int
    job: int
    group: int
    caption_sha: bytes
    stage: Stage
    state: ItemState
    attempt: int
    reason: str
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class ScoredRegion:
    """A chosen box; `sampled` says whether its two images are there."""

    number: int
    candidate: int
    scores: Scores
    text1: str
    text2: str
    left: int
    difference: str
    answer: str
    reason: str
    sampled: bool


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """What is stored of a caption beside its own row.

    `rewrites` are its attempts in order, each with its number and its verdict. `boxes` are in the segmenter's order,
    None where it was not asked. `nouns` says which of the two captions has a noun that the other lacks. A size of 0 and
    empty scores stand for a pair that is not painted.
    """

    item: int
    caption: str
    rewrites: Sequence[tuple[int, RewriteOutput, str]]
    width: int
    height: int
    painted: bool
    scores: Scores
    answer: str
    nouns: tuple[bool, bool]
    boxes: FoundBoxes | None
    regions: Sequence[ScoredRegion]


def span(connection: sqlite3.Connection) -> range:
    """The range from the first caption to the last; what is derived from captions has numbers in it, too."""
    first, last = connection.execute("SELECT min(id), max(id) FROM items").fetchone()
    return range(0) if first is None else range(first, last + 1)


def marks(connection: sqlite3.Connection, of: range) -> list[ItemMark]:
    """The marks of the captions in `of`, in order. Imported ones have none: nothing of them was judged here."""
    rows = connection.execute(
        "SELECT id, job_id, profile_id, caption_sha, stage, state, attempt, reason, created_at, updated_at FROM items"
        f" WHERE id >= ? AND id < ? AND origin IS NULL AND {MADE_HERE} ORDER BY id",
        (of.start, of.stop),
    )
    stages, states = {each.value: each for each in Stage}, {each.value: each for each in ItemState}
    return [
        ItemMark(item, job, group, sha, stages[stage], states[state], *rest)
        for item, job, group, sha, stage, state, *rest in rows
    ]


def scored(connection: sqlite3.Connection, items: Collection[int]) -> Iterator[ScoredItem]:
    """What is stored of these captions, in order."""
    asked = (json.dumps(sorted(items)),)
    among = "IN (SELECT value FROM json_each(?))"
    rewrites = parts_by_item(
        connection.execute(f"SELECT * FROM rewrites WHERE item_id {among} ORDER BY 1, attempt", asked)
    )
    regions = parts_by_item(
        connection.execute(
            "SELECT regions.*, samples.id IS NOT NULL AS sampled FROM regions LEFT JOIN samples"
            " ON samples.item_id = regions.item_id AND samples.region = regions.number"
            f" WHERE regions.item_id {among} ORDER BY regions.item_id, number",
            asked,
        )
    )
    rows = connection.execute(
        "SELECT items.id, caption, width, height, image1, scores, answer, nouns1, nouns2, boxes"
        " FROM json_each(?) AS asked"
        " CROSS JOIN items ON items.id = asked.value LEFT JOIN pairs ON pairs.item_id = items.id"
        " LEFT JOIN candidates ON candidates.item_id = items.id ORDER BY asked.key",
        asked,
    )
    for row in rows:
        item, boxes = row["id"], row["boxes"]
        yield ScoredItem(
            item,
            row["caption"],
            tuple(_rewrite(each) for each in rewrites.get(item, ())),
            row["width"] or 0,
            row["height"] or 0,
            bool(row["image1"]),
            load_scores(row["scores"] or "{}"),
            row["answer"] or "",
            (bool(load_words(row["nouns1"] or "[]")), bool(load_words(row["nouns2"] or "[]"))),
            None if boxes is None else tuple(load_boxes(boxes)),
            tuple(_region(each) for each in regions.get(item, ())),
        )


def pair_images(connection: sqlite3.Connection, items: Collection[int]) -> list[tuple[int, str, str]]:
    """The names of the two painted images of each of these captions that has any."""
    rows = connection.execute(
        "SELECT item_id, image1, image2 FROM json_each(?) AS asked CROSS JOIN pairs ON item_id = asked.value"
        " WHERE image1 <> '' ORDER BY asked.key",
        (json.dumps(sorted(items)),),
    )
    return [(item, image1, image2) for item, image1, image2 in rows]


def _rewrite(row: sqlite3.Row) -> tuple[int, RewriteOutput, str]:
    tokens = row["caption_tokens"], row["answer_tokens"]
    output = RewriteOutput(row["item_id"], row["answer"], bool(row["truncated"]), *tokens, row["seed"])
    return row["attempt"], output, row["reason"]


def _region(row: sqlite3.Row) -> ScoredRegion:
    return ScoredRegion(
        row["number"],
        row["candidate"],
        load_scores(row["scores"]),
        row["text1"],
        row["text2"],
        row["left_side"],
        row["difference"],
        row["answer"],
        row["reason"],
        bool(row["sampled"]),
    )
