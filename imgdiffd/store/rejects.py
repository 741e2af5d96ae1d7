"""Regions that were described and then rejected: what other kinds of samples are made from."""

import sqlite3
from dataclasses import replace
from functools import lru_cache

from imgdiffd.method.filters import left_image
from imgdiffd.method.profile import Profile
from imgdiffd.store.samples import COLUMNS, sample_of
from imgdiffd.store.stories import RejectedRow

_REJECTED = f"""
    SELECT 0 AS id, items.id AS item, items.job_id AS job, regions.number AS region, '' AS left_image,
        '' AS right_image, items.updated_at AS created_at, {COLUMNS}, regions.reason
    FROM items
    JOIN jobs ON jobs.id = items.job_id
    JOIN profiles ON profiles.id = items.profile_id
    JOIN pairs ON pairs.item_id = items.id
    JOIN rewrites ON rewrites.item_id = items.id AND rewrites.attempt = items.attempt
    JOIN regions ON regions.item_id = items.id
    WHERE items.state IN ('sampled', 'rejected') AND regions.reason <> '' AND regions.text1 <> ''
        AND regions.text2 <> '' AND pairs.image1 <> '' AND pairs.image2 <> ''
"""


def rejected_of_job(connection: sqlite3.Connection, job: int, after: tuple[int, int], limit: int) -> list[RejectedRow]:
    """The next `limit` rejected regions of the job that have both descriptions, behind `after`, an item and a region.

    They stand in that order. Which side is left is drawn as it would have been for a sample.
    """
    rows = connection.execute(
        f"{_REJECTED} AND items.job_id = ? AND items.origin IS NULL AND (items.id, regions.number) > (?, ?)"
        " ORDER BY items.id, regions.number LIMIT ?",
        (job, *after, limit),
    )
    return [_rejected(row) for row in rows]


def _rejected(row: sqlite3.Row) -> RejectedRow:
    sample, profile = sample_of(row), _profile(row["profile_json"])
    left = left_image(profile, sample.caption1, sample.attempt, sample.region)
    return RejectedRow(replace(sample, left=left), row["reason"], profile)


@lru_cache(maxsize=64)
def _profile(stored: str) -> Profile:
    return Profile.model_validate_json(stored)
