"""Finished samples, and the story of one item."""

import sqlite3
from collections.abc import Iterable

from imgdiffd.errors import InputError
from imgdiffd.job import ItemState
from imgdiffd.method.identity import stored_key
from imgdiffd.method.profile import IMPORTED, Profile
from imgdiffd.method.reuse import unchanged
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.store.erasures import candidates, removal_story
from imgdiffd.store.jobs import known_job
from imgdiffd.store.stories import (
    ItemStory,
    PairRow,
    RegionRow,
    RewriteRow,
    SampleRow,
)
from imgdiffd.store.values import BAR_PX, KNOWN_AS, box_of, load_scores, load_words, of_row

# Of a region and all that it belongs to; what a sample adds is in _SAMPLES.
COLUMNS = f"""
    jobs.name AS job_name, jobs.source, profiles.name AS profile, profiles.json AS profile_json,
    {BAR_PX} AS bar_px,
    items.profile_id, items.source_id, items.line, items.attempt, items.caption AS caption1,
    {KNOWN_AS} AS known_as, pairs.caption2, pairs.nouns1, pairs.nouns2, pairs.image1, pairs.image2, pairs.width,
    pairs.height, nullif(pairs.seed, 0) AS generate_seed, pairs.scores AS pair_scores,
    rewrites.seed AS rewrite_seed, regions.image, regions.x1, regions.y1, regions.x2,
    regions.y2, regions.scores, regions.text1, regions.text2, regions.left_side AS left, regions.difference
"""
_SAMPLES = f"""
    SELECT samples.id, samples.item_id AS item, samples.job_id AS job, samples.region, samples.left_image,
        samples.right_image, samples.created_at, {COLUMNS}
    FROM samples
    JOIN jobs ON jobs.id = samples.job_id
    JOIN items ON items.id = samples.item_id
    JOIN profiles ON profiles.id = items.profile_id
    JOIN pairs ON pairs.item_id = samples.item_id
    LEFT JOIN rewrites ON rewrites.item_id = samples.item_id AND rewrites.attempt = items.attempt
    JOIN regions ON regions.item_id = samples.item_id AND regions.number = samples.region
"""


def sample_of(row: sqlite3.Row) -> SampleRow:
    """The record of a row with COLUMNS and those of a sample."""
    return of_row(
        SampleRow,
        row,
        key=stored_key(row["profile_json"], row["known_as"], Pipeline.REPLACEMENT, row["region"]),
        group=str(row["profile_id"]),
        nouns1=load_words(row["nouns1"]),
        nouns2=load_words(row["nouns2"]),
        pair_scores=load_scores(row["pair_scores"]),
        box=box_of(row),
        scores=load_scores(row["scores"]),
    )


def list_samples(connection: sqlite3.Connection, job: int | None, after: int, limit: int) -> list[SampleRow]:
    """One page of samples: the next `limit` with ids above `after`, in order of id."""
    only = "" if job is None else " AND samples.job_id = ?"
    values = (after, limit) if job is None else (after, job, limit)
    rows = connection.execute(f"{_SAMPLES} WHERE samples.id > ?{only} ORDER BY samples.id LIMIT ?", values)
    return [sample_of(row) for row in rows]


def samples_of_job(connection: sqlite3.Connection, job: int, after: tuple[int, int], limit: int) -> list[SampleRow]:
    """The next `limit` samples of the job behind `after`, a caption's item and region, in that order.

    It follows an index, so that no page costs more than its own rows.
    """
    rows = connection.execute(
        f"{_SAMPLES} WHERE items.job_id = ? AND items.origin IS NULL AND (items.id, samples.region) > (?, ?)"
        " ORDER BY items.id, samples.region LIMIT ?",
        (job, *after, limit),
    )
    return [sample_of(row) for row in rows]


def newest_sample(connection: sqlite3.Connection) -> int:
    """The highest sample id ever given, or 0; that sample may be deleted since."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'samples'").fetchone()
    return 0 if row is None else int(row[0])


def profile_of(connection: sqlite3.Connection, group: str) -> Profile:
    """The profile behind a task's group. Raises InputError for an unknown group."""
    row = connection.execute("SELECT json FROM profiles WHERE id = ?", (group,)).fetchone()
    if row is None:
        raise InputError(
            f"profile group {group}: unknown", code="unknown_profile", hint="restore a backup of the database"
        )
    return Profile.model_validate_json(row["json"])


def _rewrites(connection: sqlite3.Connection, item: int) -> Iterable[RewriteRow]:
    for row in connection.execute("SELECT * FROM rewrites WHERE item_id = ? ORDER BY attempt", (item,)):
        yield of_row(RewriteRow, row, truncated=bool(row["truncated"]))


def _pair(connection: sqlite3.Connection, item: int) -> PairRow | None:
    row = connection.execute("SELECT * FROM pairs WHERE item_id = ?", (item,)).fetchone()
    if row is None:
        return None
    nouns1, nouns2 = load_words(row["nouns1"]), load_words(row["nouns2"])
    return of_row(PairRow, row, nouns1=nouns1, nouns2=nouns2, scores=load_scores(row["scores"]))


def _regions(connection: sqlite3.Connection, item: int) -> Iterable[RegionRow]:
    for row in connection.execute("SELECT * FROM regions WHERE item_id = ? ORDER BY number", (item,)):
        scores = load_scores(row["scores"])
        yield of_row(RegionRow, row, box=box_of(row), scores=scores, left=row["left_side"])


def _profiles_by_region(connection: sqlite3.Connection, caption: sqlite3.Row) -> dict[int, tuple[str, ...]]:
    """The names of the profiles under which each region of a caption is a sample, itself in its own job or shared."""
    own = profile_of(connection, str(caption["profile_id"]))
    rows = connection.execute(
        "SELECT regions.number, profiles.id, profiles.name FROM profiles"
        " CROSS JOIN items ON items.profile_id = profiles.id AND items.caption_sha = ? AND items.state <> 'cancelled'"
        " AND items.origin IS NULL AND items.attempt = ?"
        " JOIN samples ON samples.item_id = items.id"
        " JOIN regions AS theirs ON theirs.item_id = samples.item_id AND theirs.number = samples.region"
        " JOIN regions ON regions.item_id = ? AND (regions.x1, regions.y1, regions.x2, regions.y2)"
        " = (theirs.x1, theirs.y1, theirs.x2, theirs.y2) ORDER BY profiles.id",
        (caption["caption_sha"], caption["attempt"], caption["id"]),
    ).fetchall()
    found: dict[int, dict[str, None]] = {}
    for number, profile, name in rows:
        if Stage.LOCATE in unchanged(own, profile_of(connection, str(profile))):  # else it is a box of another pair
            found.setdefault(number, {})[name] = None
    return {number: tuple(names) for number, names in sorted(found.items())}


def item_story(connection: sqlite3.Connection, item: int) -> ItemStory:
    """Everything known about the item; for a derived item, the story of its origin, which includes it.

    Raises InputError if the item is unknown.
    """
    row = connection.execute(
        "SELECT * FROM items WHERE id = (SELECT coalesce(origin, id) FROM items WHERE id = ?)", (item,)
    ).fetchone()
    if row is None:
        hint = "samples and log lines name items by their numbers"
        raise InputError(f"there is no caption {item}", code="unknown_item", hint=hint)
    item, profile = row["id"], profile_of(connection, str(row["profile_id"]))
    imported = profile.name == IMPORTED
    samples = connection.execute(f"{_SAMPLES} WHERE samples.item_id = ? ORDER BY samples.id", (item,)).fetchall()
    return of_row(
        ItemStory,
        row,
        item=item,
        job=known_job(connection, row["job_id"]),
        profile=None if imported else profile,
        sampling={} if imported else profile.sampling,
        stage=Stage(row["stage"]),
        state=ItemState(row["state"]),
        rewrites=tuple(_rewrites(connection, item)),
        pair=_pair(connection, item),
        candidates=candidates(connection, item),
        regions=tuple(_regions(connection, item)),
        samples=tuple(sample_of(sample) for sample in samples),
        removal=removal_story(connection, item),
        profiles=_profiles_by_region(connection, row),
    )
