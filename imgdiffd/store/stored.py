"""All raw output that is stored of captions, as `imgdiffd.method.replay` takes it."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.method.messages import Candidate, RewriteOutput
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal_messages import FoundBox, Inspected
from imgdiffd.method.removal_replay import StoredRemoval
from imgdiffd.method.replay import Stored, StoredPair, StoredRegion
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.store.erasures import erasure_of
from imgdiffd.store.items import parts_by_item
from imgdiffd.store.values import box_of, load_boxes, load_scores, load_words

_OF = "SELECT {0}.* FROM json_each(?) AS asked CROSS JOIN {0} ON {0}.item_id = asked.value ORDER BY asked.key"
_INSPECTED = (ItemState.SAMPLED, ItemState.REJECTED)


@dataclass(frozen=True, slots=True)
class StoredCaption:
    """What is stored of a caption in a job, and of the object removal of its pair, if that began."""

    job: int
    caption: Stored
    removal: StoredRemoval | None

    @property
    def images(self) -> frozenset[str]:
        """Every image that is named."""
        names = set(self.caption.pair.images if self.caption.pair else ())
        names.update(name for region in self.caption.regions for name in region.images)
        if self.removal is not None:
            names.update(erasure.erased for erasure in self.removal.erasures)
            names.update(
                name for each in self.removal.inspected or () for name in (each.with_image, each.without_image)
            )
        return frozenset(names) - {""}


def every_profile(connection: sqlite3.Connection) -> dict[int, Profile]:
    """All profiles that the database knows, by id."""
    rows = connection.execute("SELECT id, json FROM profiles").fetchall()
    return {row["id"]: Profile.model_validate_json(row["json"]) for row in rows}


def captions_of(connection: sqlite3.Connection, job: int, after: int, limit: int) -> list[int]:
    """The job's next `limit` captions above item `after`, in order."""
    query = "SELECT id FROM items WHERE job_id = ? AND origin IS NULL AND id > ? ORDER BY id LIMIT ?"
    return [row[0] for row in connection.execute(query, (job, after, limit))]


def load_stored(
    connection: sqlite3.Connection, items: Sequence[int], profiles: Mapping[int, Profile]
) -> dict[int, StoredCaption]:
    """What is stored of these captions, by item; `profiles` are theirs, by id. Those that are gone are left out."""
    asked = (json.dumps(list(items)),)
    rewrites, regions, samples = (
        parts_by_item(connection.execute(_OF.format(table), asked)) for table in ("rewrites", "regions", "samples")
    )
    pairs = {row["item_id"]: row for row in connection.execute(_OF.format("pairs"), asked)}
    boxes = {row["item_id"]: row["boxes"] for row in connection.execute(_OF.format("candidates"), asked)}
    removals = _removals(connection, asked[0], pairs, profiles)
    found = {}
    for row in connection.execute(
        "SELECT items.* FROM json_each(?) AS asked CROSS JOIN items ON items.id = asked.value ORDER BY asked.key", asked
    ):
        item = row["id"]
        images = {each["region"]: (each["left_image"], each["right_image"]) for each in samples.get(item, ())}
        caption = Stored(
            item,
            row["caption"],
            profiles[row["profile_id"]],
            row["attempt"],
            {each["attempt"]: _rewrite(each) for each in rewrites.get(item, ())},
            _pair(pairs[item]) if item in pairs else None,
            _candidates(boxes[item]) if item in boxes else None,
            tuple(_region(each, images.get(each["number"], ())) for each in regions.get(item, ())),
        )
        found[item] = StoredCaption(row["job_id"], caption, removals.get(item))
    return found


def _rewrite(row: sqlite3.Row) -> RewriteOutput:
    counts = row["caption_tokens"], row["answer_tokens"], row["seed"]
    return RewriteOutput(row["item_id"], row["answer"], bool(row["truncated"]), *counts)


def _pair(row: sqlite3.Row) -> StoredPair:
    size = row["width"], row["height"]
    return StoredPair(row["image1"], row["image2"], *size, row["seed"], load_scores(row["scores"]), row["answer"])


def _candidates(boxes: str) -> tuple[Candidate, ...]:
    return tuple(Candidate(image, box, scores) for image, box, scores, _, _ in load_boxes(boxes))


def _region(row: sqlite3.Row, images: tuple[str, ...]) -> StoredRegion:
    said = row["text1"], row["text2"], row["left_side"], row["difference"], row["answer"]
    return StoredRegion(box_of(row), load_scores(row["scores"]), *said, images)


def _removals(
    connection: sqlite3.Connection, asked: str, pairs: Mapping[int, sqlite3.Row], profiles: Mapping[int, Profile]
) -> dict[int, StoredRemoval]:
    rows = connection.execute(
        "SELECT items.* FROM json_each(?) AS asked CROSS JOIN items ON items.origin = asked.value"
        " WHERE items.pipeline = ?",
        (asked, Pipeline.REMOVAL),
    ).fetchall()
    derived = (json.dumps([row["id"] for row in rows]),)
    boxes = {row["item_id"]: row["boxes"] for row in connection.execute(_OF.format("candidates"), derived)}
    erasures = parts_by_item(connection.execute(f"{_OF.format('erasures')}, image, number", derived))
    found = {}
    for row in rows:
        item, pair, objects = row["id"], _pair(pairs[row["origin"]]), erasures.get(row["id"], [])
        nouns1, nouns2 = (bool(load_words(pairs[row["origin"]][side])) for side in ("nouns1", "nouns2"))
        inspected = row["stage"] == Stage.INSPECT and row["state"] in _INSPECTED
        found[row["origin"]] = StoredRemoval(
            item,
            row["caption"],
            profiles[row["profile_id"]],
            row["attempt"],
            pair.images,
            (nouns1, nouns2),
            item in boxes and row["reason"] != "no_noun_changed",
            tuple(FoundBox(image, box, scores) for image, box, scores, _, _ in load_boxes(boxes.get(item, "[]"))),
            tuple(erasure_of(each, item) for each in objects),
            tuple(map(_object, objects)) if inspected else None,
        )
    return found


def _object(row: sqlite3.Row) -> Inspected:
    images = row["with_image"], row["without_image"]
    return Inspected(row["image"], row["number"], row["text"], load_scores(row["scores"]), *images)
