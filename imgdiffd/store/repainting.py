"""Sends items back whose pair of images is gone, as after the restore of an older backup."""

import json
import sqlite3
from collections.abc import Collection

from imgdiffd.job import ItemState
from imgdiffd.pipeline import PIPELINES, Pipeline, Stage
from imgdiffd.store.items import beyond
from imgdiffd.store.moves import move_items, pass_on

GONE = "pictures_missing"
_REMOVAL = ", ".join(f"'{stage}'" for stage in PIPELINES[Pipeline.REMOVAL].stages)


def waiting_pairs(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str, str]]:
    """The next `limit` READY items above `after` that work on a painted pair, each with the names of its two images."""
    rows = connection.execute(
        "SELECT items.id, image1, image2 FROM items JOIN pairs ON pairs.item_id = coalesce(items.origin, items.id)"
        f" WHERE items.state = 'ready' AND ({beyond(Stage.GENERATE)} OR items.stage IN ({_REMOVAL})) AND items.id > ?"
        " ORDER BY items.id LIMIT ?",
        (after, limit),
    )
    return [(row["id"], row["image1"], row["image2"]) for row in rows]


def repaint(connection: sqlite3.Connection, items: Collection[int], now: float) -> int:
    """Have the pairs of these READY captions painted again, from the same seeds; returns how many.

    Boxes and regions found on the lost images are deleted, and found again. Object removal does not wait for the new
    pair: its items among these become FAILED, and can be tried again once the pair is there.
    """
    chosen = (json.dumps(list(items)),)
    among = "IN (SELECT value FROM json_each(?))"
    detail = "the images of its pair are gone"
    changes = "reason = ?, detail = ?"
    removals = f"id {among} AND origin IS NOT NULL"
    move_items(connection, ItemState.FAILED, now, removals, chosen, changes, (GONE, detail))
    captions = f"SELECT id FROM items WHERE id {among} AND origin IS NULL"
    connection.execute(f"DELETE FROM candidates WHERE item_id IN ({captions})", chosen)
    connection.execute(f"DELETE FROM regions WHERE item_id IN ({captions})", chosen)
    rows = connection.execute(f"SELECT DISTINCT attempt FROM items WHERE id IN ({captions})", chosen).fetchall()
    return sum(
        pass_on(connection, Stage.GENERATE, attempt, now, f"id IN ({captions}) AND attempt = ?", (*chosen, attempt))
        for (attempt,) in rows
    )
