"""Turns rows into records, and lists and scores into JSON columns that SQLite's own functions can read."""

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from imgdiffd.method.messages import Box, Scores

T = TypeVar("T")

# What an item is told from others by, in SQL: its caption or, of an imported one, whose caption is not known, a digest.
KNOWN_AS = "CASE items.caption WHEN '' THEN hex(items.caption_sha) ELSE items.caption END"
MADE_HERE = "items.caption <> ''"  # that it was not imported

# The bar between the two images in pixels: the paper's for an imported dataset, whose profile is not known.
BAR_PX = "coalesce(json_extract(profiles.json, '$.contrast.bar_px'), 20)"

_COMPACT = json.JSONEncoder(separators=(",", ":"))  # `json.dumps` would build a new encoder for every call


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def of_row(kind: type[T], row: sqlite3.Row, /, **given: object) -> T:
    """A record of type `kind`: the fields in `given`, and all others from the columns of the same names."""
    return kind(**given, **{name: row[name] for name in _names(cast(Any, kind)) if name not in given})


def box_of(row: sqlite3.Row) -> Box:
    """The box in the row's columns x1, y1, x2, y2."""
    return row["x1"], row["y1"], row["x2"], row["y2"]


def dump_scores(scores: Mapping[str, float]) -> str:
    """Raw scores as a JSON object. JSON has no NaN, so a score that is not finite is left out: it is missing."""
    return _COMPACT.encode(_finite(scores))


def _finite(scores: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in scores.items() if math.isfinite(value)}


def dump_boxes(boxes: Iterable[tuple[int, Box, Mapping[str, float], str, str]]) -> str:
    """The boxes as a JSON list of objects: image, corners, scores, and why it was dropped."""
    keys = ("image", "box", "scores", "reason", "detail")
    return _COMPACT.encode(
        [
            dict(zip(keys, (image, box, _finite(scores), reason, detail), strict=True))
            for image, box, scores, reason, detail in boxes
        ]
    )


def load_boxes(text: str) -> Iterator[tuple[int, Box, Scores, str, str]]:
    """The boxes that `dump_boxes` wrote to `text`."""
    for kept in json.loads(text):
        x1, y1, x2, y2 = kept["box"]
        yield kept["image"], (x1, y1, x2, y2), kept["scores"], kept["reason"], kept["detail"]


def load_scores(text: str) -> Scores:
    """The scores that `dump_scores` wrote to `text`."""
    return {str(key): float(value) for key, value in json.loads(text).items()}


def dump_words(words: Iterable[str]) -> str:
    """Words as a JSON list."""
    return json.dumps(list(words), ensure_ascii=False)


def load_words(text: str) -> tuple[str, ...]:
    """The words that `dump_words` wrote to `text`."""
    return tuple(str(word) for word in json.loads(text))
