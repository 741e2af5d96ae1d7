"""Jobs whose samples came finished from elsewhere, written row by row in a transaction that the caller begins and ends.

What is not known of an imported sample is empty: captions, nouns, scores, seeds, the images without boxes.
"""

import hashlib
import sqlite3
from dataclasses import dataclass

from imgdiffd.job import CaptionProblem, ItemState, JobState
from imgdiffd.method.filters import PASSED
from imgdiffd.method.messages import Box
from imgdiffd.method.profile import IMPORTED, imported_profile
from imgdiffd.method.removal import holder_of
from imgdiffd.method.removal_messages import NO_COSINE, Erasure
from imgdiffd.pipeline import PIPELINES, Pipeline, Stage
from imgdiffd.store.jobs import keep_profile, known_job
from imgdiffd.store.moves import move_job
from imgdiffd.store.rows import JobRow
from imgdiffd.store.tallies import count_verdicts

NOT_RELEASED = "not_released"  # why a caption has no sample of object replacement: only a removal of it came
_LAST = PIPELINES[Pipeline.REPLACEMENT].stages[-1]
_LAST_OF_REMOVAL = PIPELINES[Pipeline.REMOVAL].stages[-1]


@dataclass(frozen=True, slots=True)
class ImportedSample:
    """A finished sample of caption `item`; `number` is its region's or, of a removal, its object's in image `image`.

    `left` and `right` are its images below the image folder, the texts say what the box shows there. Of a removal,
    `answer` is the letter of the side that still has the object.
    """

    item: int
    image: int
    number: int
    line: int
    source_id: str
    box: Box
    width: int
    height: int
    left: str
    right: str
    left_text: str
    right_text: str
    answer: str


def last_item(connection: sqlite3.Connection) -> int:
    """The highest number that an item ever had, or 0."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
    return 0 if row is None else int(row[0])


def imported_before(connection: sqlite3.Connection, sha256: str) -> int | None:
    """The job that has this content already."""
    row = connection.execute(
        "SELECT jobs.id FROM jobs JOIN profiles ON profiles.id = profile_id WHERE jobs.sha256 = ? AND profiles.name = ?"
        " AND state = ?",
        (sha256, IMPORTED, JobState.DONE),
    ).fetchone()
    return None if row is None else int(row[0])


class ImportedJob:
    """A job that is being imported."""

    def __init__(self, connection: sqlite3.Connection, name: str, source: str, sha256: str, now: float) -> None:
        self._connection = connection
        self._sha256 = sha256
        self._now = now
        self._known = set[int]()
        self._profile = _profile(connection)
        cursor = connection.execute(
            "INSERT INTO jobs (name, source, sha256, profile_id, priority, state, created_at)"
            " VALUES (?, ?, ?, ?, 0, ?, ?)",
            (name, source, sha256, self._profile, JobState.READING, now),
        )
        self.id = cursor.lastrowid or 0

    def size_of(self, item: int) -> tuple[int, int] | None:
        """The width and height of the caption's images, if it has any yet."""
        row = self._connection.execute("SELECT width, height FROM pairs WHERE item_id = ?", (item,)).fetchone()
        return None if row is None or not row["width"] else (row["width"], row["height"])

    def add_replacement(self, sample: ImportedSample) -> None:
        """Insert a sample of object replacement, with its caption's item unless it is there."""
        self._add_caption(sample, sampled=True)
        run = self._connection.execute
        run("UPDATE pairs SET width = ?, height = ? WHERE item_id = ?", (sample.width, sample.height, sample.item))
        run(
            "INSERT INTO regions (item_id, number, candidate, image, x1, y1, x2, y2, scores, text1, text2, left_side,"
            " difference) VALUES (?, ?, -1, 0, ?, ?, ?, ?, '{}', ?, ?, 1, ?)",
            (sample.item, sample.number, *sample.box, sample.left_text, sample.right_text, sample.answer),
        )
        run(
            "INSERT INTO samples (job_id, item_id, region, left_image, right_image, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (self.id, sample.item, sample.number, sample.left, sample.right, self._now),
        )
        count_verdicts(self._connection, _LAST, [(self.id, PASSED)])

    def add_removal(self, item: int, sample: ImportedSample) -> None:
        """Insert a sample of object removal, and its caption's item and the derived one, `item`, where they are not."""
        self._add_caption(sample, sampled=False)
        if item not in self._known:
            self._add_item(item, sample, _LAST_OF_REMOVAL, ItemState.SAMPLED, "", origin=sample.item)
        on_left = sample.answer == "A"
        seed = _seed(sample, "left" if on_left else "right")
        images = (sample.left, sample.right) if on_left else (sample.right, sample.left)
        key = (item, sample.image, sample.number)
        self._connection.execute(
            "INSERT INTO erasures (item_id, image, number, x1, y1, x2, y2, size_px, cosine, source, erased, seed, text,"
            " with_image, without_image) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', ?, ?, ?, ?)",
            (*key, *sample.box, sample.width, NO_COSINE, seed, sample.left_text or sample.right_text, *images),
        )
        self._connection.execute(
            "INSERT INTO removal_samples (job_id, item_id, image, number, created_at) VALUES (?, ?, ?, ?, ?)",
            (self.id, *key, self._now),
        )
        count_verdicts(self._connection, _LAST_OF_REMOVAL, [(self.id, PASSED)])

    def add_problem(self, problem: CaptionProblem) -> None:
        """Note a record that cannot be used."""
        self._connection.execute(
            "INSERT INTO problems (job_id, line, code, message) VALUES (?, ?, ?, ?)",
            (self.id, problem.line, problem.code, problem.message),
        )

    def finish(self) -> JobRow:
        """The job, which is done."""
        self._connection.execute(
            "UPDATE jobs SET total = (SELECT count(*) FROM items WHERE job_id = jobs.id AND origin IS NULL),"
            " problems = (SELECT count(*) FROM problems WHERE job_id = jobs.id) WHERE id = ?",
            (self.id,),
        )
        move_job(self._connection, self.id, JobState.DONE, self._now)
        return known_job(self._connection, self.id)

    def _add_caption(self, sample: ImportedSample, *, sampled: bool) -> None:
        if sample.item in self._known:
            return
        state = (ItemState.SAMPLED, "") if sampled else (ItemState.REJECTED, NOT_RELEASED)
        self._add_item(sample.item, sample, _LAST, *state, origin=None)
        self._connection.execute(
            "INSERT INTO pairs (item_id, caption2, nouns1, nouns2) VALUES (?, '', '[]', '[]')", (sample.item,)
        )

    def _add_item(
        self, item: int, sample: ImportedSample, stage: Stage, state: ItemState, reason: str, origin: int | None
    ) -> None:
        known_as = f"{self._sha256} {sample.source_id}".encode()
        pipeline = Pipeline.REPLACEMENT if origin is None else Pipeline.REMOVAL
        self._connection.execute(
            "INSERT INTO items (id, job_id, profile_id, line, source_id, caption, caption_sha, stage, state, reason,"
            " created_at, updated_at, pipeline, origin) VALUES (?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(item, self.id, self._profile, sample.line, sample.source_id),
                *(hashlib.blake2b(known_as, digest_size=16).digest(), stage, state, reason),
                *(self._now, self._now, pipeline, origin),
            ),
        )
        self._known.add(item)


def _profile(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT id FROM profiles WHERE name = ? ORDER BY id", (IMPORTED,)).fetchone()
    return keep_profile(connection, imported_profile()) if row is None else int(row[0])


def _seed(sample: ImportedSample, holder: str) -> int:
    """The least seed whose sample has the object on that side: the side is kept as nothing else."""
    seeds = (Erasure(sample.item, sample.image, sample.number, sample.box, 1, 0.0, "", "", seed) for seed in range(64))
    return next(each.seed for each in seeds if holder_of(each) == holder)
