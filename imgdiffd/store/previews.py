"""Keeps what previews of half-painted pairs have shown, and gives each job the thresholds that follow from it."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from imgdiffd.job import JobState
from imgdiffd.method.advance import Subject
from imgdiffd.method.calibration import (
    Calibration,
    Preview,
    calibrate,
    fingerprint,
    is_counted,
    preview_at,
    takes_thresholds,
    with_thresholds,
    without_thresholds,
)
from imgdiffd.method.messages import PREVIEW_COSINE
from imgdiffd.method.profile import Profile
from imgdiffd.store.values import load_scores

MOST = 20_000  # previews of one calibration; beyond, the older half goes, so that the threshold seldom moves


@dataclass(frozen=True, slots=True)
class PreviewsRow:
    """What the previews of one profile, bundle and step show.

    `profile` names the last profile that had them, `at` is the share of the steps at which they are made, and `loss`
    the share of kept pairs that each side may lose. `saved` is the share of painting that early abort saves with the
    thresholds in force, or would save.
    """

    profile: str
    bundle: str
    at: float
    loss: float
    calibration: Calibration
    saved: float


def keep_previews(
    connection: sqlite3.Connection, profile: Profile, bundle: str, judged: Sequence[tuple[Subject, bool]]
) -> None:
    """Keep the previews of pairs that their gate has judged now, with whether it kept them.

    Only pairs that were finished whatever their preview said are counted, and each once, however often it is painted.
    """
    counted = {s.item: kept for s, kept in judged if is_counted(profile, s.caption, s.attempt)}
    rows = connection.execute(
        "SELECT item_id, scores FROM json_each(?) AS asked CROSS JOIN pairs ON pairs.item_id = asked.value"
        " ORDER BY asked.key",
        (json.dumps(list(counted)),),
    )
    scores = [(row["item_id"], load_scores(row["scores"]).get(PREVIEW_COSINE)) for row in rows]
    found = [(item, score, counted[item]) for item, score in scores if score is not None]
    if not found:
        return
    number = _calibration_of(connection, profile, bundle)
    connection.executemany(
        "INSERT INTO previews (calibration_id, item_id, score, kept) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        ((number, *each) for each in found),
    )
    of_it = "FROM previews WHERE calibration_id = ?"
    if connection.execute(f"SELECT count(*) {of_it}", (number,)).fetchone()[0] > MOST:
        older = f"SELECT id {of_it} ORDER BY id LIMIT ?"
        connection.execute(f"DELETE FROM previews WHERE id IN ({older})", (number, MOST // 2))


def _calibration_of(connection: sqlite3.Connection, profile: Profile, bundle: str) -> int:
    abort = profile.generate.abort
    found: int = connection.execute(
        "INSERT INTO calibrations (key, profile, bundle, at, loss, finished) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE"
        " SET profile = excluded.profile, loss = excluded.loss, finished = excluded.finished RETURNING id",
        (fingerprint(profile, bundle), profile.name, bundle, preview_at(profile), abort.loss, abort.finished),
    ).fetchone()[0]
    return found


def admitted(connection: sqlite3.Connection, profile: Profile, bundle: str, sha256: str) -> Profile:
    """The profile to record with a job of `profile` and this content that is admitted now: with thresholds in force.

    A file that was taken before, under thresholds of its day, has the profile of that day: it is no new one.
    """
    if not takes_thresholds(profile):
        return profile
    taken = connection.execute(
        "SELECT profiles.json FROM jobs JOIN profiles ON profiles.id = jobs.profile_id WHERE jobs.sha256 = ?"
        " AND profiles.name = ? AND duplicate_of IS NULL AND state NOT IN (?, ?) ORDER BY jobs.id DESC",
        (sha256, profile.name, JobState.CANCELLED, JobState.FAILED),
    )
    for row in taken:
        if _but_for_thresholds(row["json"]) == without_thresholds(profile).stored():
            return Profile.model_validate_json(row["json"])
    found = connection.execute("SELECT id FROM calibrations WHERE key = ?", (fingerprint(profile, bundle),)).fetchone()
    previews = [] if found is None else _previews(connection, found["id"])
    return with_thresholds(profile, calibrate(previews, profile.generate.abort.loss))


def alike(connection: sqlite3.Connection, profile: int) -> list[int]:
    """The other profiles that differ from this one in thresholds of early abort alone: they count as the same."""
    row = connection.execute("SELECT name, json FROM profiles WHERE id = ?", (profile,)).fetchone()
    same = _but_for_thresholds(row["json"])
    others = connection.execute("SELECT id, json FROM profiles WHERE name = ? AND id <> ?", (row["name"], profile))
    return [other["id"] for other in others if _but_for_thresholds(other["json"]) == same]


def families(connection: sqlite3.Connection) -> dict[int, int]:
    """For each profile the first that differs from it in thresholds of early abort at most."""
    first: dict[str, int] = {}
    rows = connection.execute("SELECT id, json FROM profiles ORDER BY id").fetchall()
    return {row["id"]: first.setdefault(_but_for_thresholds(row["json"]), row["id"]) for row in rows}


@lru_cache(maxsize=256)  # asked for every file and every chunk of captions, of the same few profiles
def _but_for_thresholds(stored: str) -> str:
    profile = Profile.model_validate_json(stored)
    return stored if profile.generate.abort.mode == "off" else without_thresholds(profile).stored()


def _previews(connection: sqlite3.Connection, number: int) -> list[Preview]:
    rows = connection.execute("SELECT score, kept FROM previews WHERE calibration_id = ? ORDER BY id", (number,))
    return [Preview(score, bool(kept)) for score, kept in rows]


def every(connection: sqlite3.Connection) -> list[PreviewsRow]:
    """What previews show, a row for each profile, bundle and step, in the order in which they were first seen."""
    found = []
    for row in connection.execute("SELECT * FROM calibrations ORDER BY id").fetchall():
        calibration = calibrate(_previews(connection, row["id"]), row["loss"])
        saved = calibration.given_up * (1 - row["finished"]) * (1 - row["at"])
        found.append(PreviewsRow(row["profile"], row["bundle"], row["at"], row["loss"], calibration, saved))
    return found
