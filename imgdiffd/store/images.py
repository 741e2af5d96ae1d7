"""The images that rows name, whether they are still wanted, and the pairs that object removal missed."""

import sqlite3
from collections.abc import Mapping

from imgdiffd.images.retention import ItemImages, ObjectImages
from imgdiffd.job import ItemState
from imgdiffd.pipeline import PIPELINES, Pipeline, Stage
from imgdiffd.store.items import beyond

_LIVE = "jobs.state NOT IN ('cancelled', 'failed')"
_PASSED = beyond(PIPELINES[Pipeline.REMOVAL].starts_after or Stage.COMPARE)


def images(connection: sqlite3.Connection, items: range, *, removal: bool) -> Mapping[int, ItemImages]:
    """The images of each caption in `items`. With `removal`, pairs that object removal missed are backfillable."""
    bounds = (items.start, items.stop)
    samples: dict[int, list[str]] = {}
    for row in connection.execute(
        "SELECT item_id, left_image, right_image FROM samples WHERE item_id >= ? AND item_id < ?", bounds
    ):
        samples.setdefault(row["item_id"], []).extend((row["left_image"], row["right_image"]))
    objects: dict[int, list[ObjectImages]] = {}
    for row in connection.execute(
        "SELECT origin, source, erased, with_image, without_image FROM items JOIN erasures ON item_id = id"
        " WHERE origin >= ? AND origin < ?",
        bounds,
    ):
        objects.setdefault(row["origin"], []).append(ObjectImages(*row[1:]))
    rows = connection.execute(
        f"SELECT items.id, items.state, {_LIVE} AS live, {_PASSED} AND pairs.image1 <> '' AS passed,"
        " removal.state AS removal, pairs.image1, pairs.image2"
        " FROM items JOIN jobs ON jobs.id = items.job_id LEFT JOIN pairs ON pairs.item_id = items.id"
        " LEFT JOIN items AS removal ON removal.origin = items.id AND removal.pipeline = 'removal'"
        " WHERE items.id >= ? AND items.id < ? AND items.origin IS NULL",
        bounds,
    )
    return {
        row["id"]: ItemImages(
            item=row["id"],
            state=ItemState(row["state"]),
            live=bool(row["live"]),
            removal=None if row["removal"] is None else ItemState(row["removal"]),
            backfillable=bool(removal and row["removal"] is None and row["passed"] and row["live"]),
            pair=tuple(filter(None, (row["image1"], row["image2"]))),
            samples=tuple(samples.get(row["id"], ())),
            objects=tuple(objects.get(row["id"], ())),
        )
        for row in rows
    }


def items_of(connection: sqlite3.Connection, job: int) -> range:
    """The range from the job's first caption to its last; it may include items of jobs read at the same time."""
    query = "SELECT min(id), max(id) FROM items WHERE job_id = ? AND origin IS NULL"
    first, last = connection.execute(query, (job,)).fetchone()
    return range(0) if first is None else range(first, last + 1)


def missed_pairs(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str, str]]:
    """The next `limit` pairs above item `after` that passed the similarity gate while object removal was off."""
    rows = connection.execute(
        "SELECT items.id, pairs.image1, pairs.image2 FROM items JOIN jobs ON jobs.id = items.job_id"
        " JOIN pairs ON pairs.item_id = items.id"
        f" WHERE items.id > ? AND {_PASSED} AND pairs.image1 <> '' AND {_LIVE} AND NOT EXISTS"
        " (SELECT 1 FROM items AS removal WHERE removal.origin = items.id AND removal.pipeline = 'removal')"
        " ORDER BY items.id LIMIT ?",
        (after, limit),
    )
    return [(row["id"], row["image1"], row["image2"]) for row in rows]
