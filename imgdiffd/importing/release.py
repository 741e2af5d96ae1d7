"""Reads a dataset in the published layout into a database: all of it or nothing, and the images before the rows."""

import hashlib
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imgdiffd.errors import InputError, StoreError, reason_of
from imgdiffd.images.files import folder_of
from imgdiffd.importing.records import LISTS, Record, RecordError, entries, path_of, record_of
from imgdiffd.importing.sources import FoundImage, Sources, place
from imgdiffd.job import CaptionProblem
from imgdiffd.pipeline import Pipeline
from imgdiffd.store.connection import opened_to_write
from imgdiffd.store.importing import ImportedJob, ImportedSample, imported_before, last_item

_AT_ONCE = 8  # records whose images are written with one sync of their folder
_HIGHEST = 100_000_000  # of a caption that a path names: numbers of items stay dense enough to be walked through
# What our own exports call a sample: caption and region, or caption, image and object.
_OURS = {
    Pipeline.REPLACEMENT: re.compile(r"object_replacement/(\d{8,9})_(\d{1,4})", re.ASCII),
    Pipeline.REMOVAL: re.compile(r"object_removal/(\d{8,9})_([12])_(\d{1,4})", re.ASCII),
}


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. `left_out` counts the records that cannot be used by reason, `other_questions` those used."""

    job: int
    name: str
    samples: int
    removals: int
    left_out: Mapping[str, int]
    other_questions: int
    known: bool = False  # the database has had it before; nothing was done


@dataclass(frozen=True, slots=True)
class _Survey:
    """What a first look through the lists shows; `highest` is the highest caption that all paths name, else None."""

    lists: Mapping[Pipeline, Path]
    sha256: str
    records: int
    highest: int | None


def import_release(
    release: Path,
    database: Path,
    images: Path,
    *,
    name: str | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Imported:
    """Read the dataset in the folder `release` into a job of `database`, and its images into the folder `images`.

    The rows appear together, after the images: killed midway, nothing of it is there, and the next import begins anew.
    A record that cannot be used is a problem of the job. `progress` is told how many records of how many were read.
    Raises InputError where nothing can be imported, StoreError, also while a daemon runs, and OSError.
    """
    survey = _survey(release)
    with opened_to_write(database) as connection, Sources(release) as sources:
        if (job := imported_before(connection, survey.sha256)) is not None:
            return Imported(job, "", 0, 0, {}, 0, known=True)
        images.mkdir(parents=True, exist_ok=True)
        with _all_or_nothing(connection, database) as placed:
            named = name or release.resolve().name
            made = ImportedJob(connection, named, str(release.resolve()), survey.sha256, time.time())
            work = _Import(connection, made, survey, sources, images, placed, progress)
            work.run()
            if not (work.samples + work.removals):
                why = f": {work.first_problem}" if work.first_problem else ""
                raise InputError(f"{release}: no record can be used{why}", code="nothing_usable", hint=_LAYOUT)
            row = made.finish()
    return Imported(row.id, row.name, work.samples, work.removals, work.left_out, work.other_questions)


_LAYOUT = (
    f"it holds {' or '.join(LISTS.values())}, and beside it the folder object_replacement or object_removal, or a ZIP "
    "archive of that name"
)


def _survey(release: Path) -> _Survey:
    lists = {kind: file for kind, name in LISTS.items() if (file := release / name).is_file()}
    if not lists:
        what = "no such folder" if not release.is_dir() else "no published dataset"
        raise InputError(f"{release}: {what}", code="no_release", hint=_LAYOUT)
    digest, records, ours, highest = hashlib.sha256(), 0, True, 0
    for kind, file in lists.items():
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
        for entry in entries(file):
            records += 1
            try:
                match = _OURS[kind].fullmatch(path_of(entry))
            except RecordError:  # one that will be left out tells nothing
                continue
            ours = ours and match is not None and 0 < int(match[1]) <= _HIGHEST
            highest = max(highest, int(match[1]) if match else 0)
    return _Survey(lists, digest.hexdigest(), records, highest if ours and highest else None)


@contextmanager
def _all_or_nothing(connection: sqlite3.Connection, database: Path) -> Iterator[list[Path]]:
    """A transaction. If it fails, what was gathered in the list of files that were placed is removed again."""
    placed: list[Path] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield placed
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for file in placed:
            file.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            hint = "free some disk space or check the disk, and import it again: nothing of it is there"
            raise StoreError(f"{database}: the import failed: {reason_of(error)}", hint=hint) from error
        raise


class _Import:
    """The records of one dataset on their way into a job."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        job: ImportedJob,
        survey: _Survey,
        sources: Sources,
        images: Path,
        placed: list[Path],
        progress: Callable[[int, int], object],
    ) -> None:
        self.samples = self.removals = self.other_questions = 0
        self.left_out: Counter[str] = Counter()
        self.first_problem = ""
        self._job, self._survey, self._sources, self._images, self._placed = job, survey, sources, images, placed
        self._progress = progress
        self._base = last_item(connection)
        self._next = self._base + (survey.highest or survey.records) + 1  # the first number for a derived item
        self._derived: dict[int, int] = {}
        self._read = 0
        self._waiting: dict[Path, FoundImage] = {}

    def run(self) -> None:
        """Take every record of both lists."""
        for kind, file in self._survey.lists.items():
            seen = set[str]()
            for line, entry in enumerate(entries(file), 1):
                self._read += 1
                try:
                    self._take(kind, line, entry, seen)
                except RecordError as error:
                    self.left_out[error.code] += 1
                    message = f"{file.name}, record {line}: {error}"
                    self.first_problem = self.first_problem or message
                    self._job.add_problem(CaptionProblem(line, error.code, message))
                if len(self._waiting) >= 2 * _AT_ONCE:
                    self._place()
                self._progress(self._read, self._survey.records)
        self._place()

    def _take(self, kind: Pipeline, line: int, entry: object, seen: set[str]) -> None:
        record = record_of(kind, entry)
        item, image, number, source_id = self._numbers(record)
        told = record.path if self._survey.highest is None else f"{item} {image} {number}"
        if told in seen:
            raise RecordError("path_twice", f"an earlier record has the same path: {record.path}")
        left, right = self._sources.pair(record)
        if kind is Pipeline.REMOVAL and left.width != left.height:
            raise RecordError("not_square", f"its images are not square: {record.path}")
        if kind is Pipeline.REPLACEMENT and self._job.size_of(item) not in (None, (left.width, left.height)):
            raise RecordError("sizes_differ", f"other images of its pair have another size: {record.path}")
        seen.add(told)
        stem = f"{folder_of(item)}/{item}-1-{'r' if kind is Pipeline.REPLACEMENT else f'{image}-e'}{number}"
        names = f"{stem}-left{left.ending}", f"{stem}-right{right.ending}"
        self._waiting |= {self._images / name: found for name, found in zip(names, (left, right), strict=True)}
        x1, y1, x2, y2 = record.box
        box = (round(x1 * left.width), round(y1 * left.height), round(x2 * left.width), round(y2 * left.height))
        texts = record.left, record.right, record.answer
        size = left.width, left.height
        sample = ImportedSample(item, image, number, line, source_id, box, *size, *names, *texts)
        if kind is Pipeline.REPLACEMENT:
            self._job.add_replacement(sample)
            self.samples += 1
        else:
            self._job.add_removal(self._derived_from(item), sample)
            self.removals += 1
        self.other_questions += not record.asks_as_published

    def _numbers(self, record: Record) -> tuple[int, int, int, str]:
        """Caption, image (0: of no matter) and number of a sample, and what its caption is known by in the dataset.

        A dataset that we exported tells them; in a new database its captions get the numbers that they had.
        """
        if self._survey.highest is None:
            return self._base + self._read, int(record.kind is Pipeline.REMOVAL), 0, record.path
        match = _OURS[record.kind].fullmatch(record.path)
        if match is None:
            raise RecordError("path_odd", f"the list has changed while it was read: {record.path}")
        place = [int(part) for part in match.groups()[1:]]
        image, number = place if len(place) == 2 else (0, place[0])
        return self._base + int(match[1]), image, number, match[1]

    def _derived_from(self, item: int) -> int:
        if item not in self._derived:
            self._derived[item] = self._next
            self._next += 1
        return self._derived[item]

    def _place(self) -> None:
        self._placed += self._waiting
        place(self._waiting)
        self._waiting = {}
