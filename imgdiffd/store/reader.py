"""The database for programs that only read it: exports, the contact sheet, a look at a finished run."""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from imgdiffd.errors import StoreError
from imgdiffd.images.retention import ItemImages
from imgdiffd.job import CaptionProblem, JobChoice
from imgdiffd.method.profile import Profile
from imgdiffd.store import images, jobs, meta, previews, rejects, reports, samples, scores
from imgdiffd.store.bundles import bundles_of
from imgdiffd.store.connection import check, configure
from imgdiffd.store.damage import damaged
from imgdiffd.store.erasures import removal_samples
from imgdiffd.store.found import Cursor, ItemPage, Order, SamplePage, Wanted
from imgdiffd.store.looking import list_items_by, list_samples_by
from imgdiffd.store.migration import SCHEMA_VERSION, migrate, version_of
from imgdiffd.store.open_work import OpenTotals
from imgdiffd.store.previews import PreviewsRow
from imgdiffd.store.read_only import read_only
from imgdiffd.store.read_pool import snapshot
from imgdiffd.store.rows import (
    BundleRow,
    FunnelCounts,
    JobRow,
    MadeRow,
    Overview,
    Timing,
)
from imgdiffd.store.scores import ItemMark, ScoredItem
from imgdiffd.store.sqlite_codes import is_damage
from imgdiffd.store.stored import StoredCaption, captions_of, every_profile, load_stored
from imgdiffd.store.stories import (
    ItemStory,
    RejectedRow,
    RemovalRow,
    SampleRow,
)

PAGE = 500  # samples per query


class Reader:
    """A database read without a daemon, or beside one: no lock, no writes, no event loop."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Reader"]:
        """Open the database at `path` and change nothing about it, not even the log that a killed daemon left.

        Raises StoreError if it does not exist or cannot be read, StoreDamagedError if it is damaged, ConfigurationError
        if it is not ours.
        """
        try:
            path.stat()
        except FileNotFoundError as error:
            raise StoreError(f"{path}: no such database", hint="start the daemon once, or give another path") from error
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}", hint="read it as its owner") from error
        try:
            with read_only(path) as connection:
                check(connection, path)
                with closing(_up_to_date(connection)) as current:
                    configure(current, writer=False)
                    yield cls(current)
        except sqlite3.Error as error:
            if is_damage(error):
                raise damaged(path, error) from error
            raise StoreError(
                f"{path}: cannot be read: {error}", hint="read it as its owner, or with a daemon that runs"
            ) from error

    def samples(self, jobs: Collection[int] | None = None) -> Iterator[SampleRow]:
        """The samples of these jobs, or of all, in order of job, caption and region, read page by page."""
        for job in self._known(jobs):
            page, after = partial(samples.samples_of_job, job=job, limit=PAGE), (0, 0)
            while rows := snapshot(self._connection, partial(page, after=after)):
                yield from rows
                after = rows[-1].item, rows[-1].region

    def removal_samples(self, jobs: Collection[int] | None = None) -> Iterator[RemovalRow]:
        """The removal samples of these jobs, or of all, in order of job, caption, image and object."""
        for job in self._known(jobs):
            after = 0
            while page := snapshot(self._connection, partial(removal_samples, job=job, after=after, limit=PAGE)):
                for _, found in page:
                    yield from found
                after, _ = page[-1]

    def rejected_regions(self, jobs: Collection[int] | None = None) -> Iterator[RejectedRow]:
        """The rejected regions of these jobs, or of all, that have both descriptions, in the order of `samples`."""
        for job in self._known(jobs):
            page, after = partial(rejects.rejected_of_job, job=job, limit=PAGE), (0, 0)
            while rows := snapshot(self._connection, partial(page, after=after)):
                yield from rows
                after = rows[-1].sample.item, rows[-1].sample.region

    def _known(self, jobs: Collection[int] | None) -> Collection[int]:
        return [row.job for row in self.made()] if jobs is None else jobs

    def stored(self, jobs: Collection[int]) -> Iterator[StoredCaption]:
        """All raw output that is stored of these jobs' captions, in order of job and caption, read page by page."""
        profiles = snapshot(self._connection, every_profile)
        for job in jobs:
            after = 0
            page = partial(captions_of, job=job, limit=PAGE)
            while items := snapshot(self._connection, partial(page, after=after)):
                found = snapshot(self._connection, partial(load_stored, items=items, profiles=profiles))
                yield from found.values()
                after = items[-1]

    def made(self) -> list[MadeRow]:
        """What each job has made so far, in order of the jobs."""
        return snapshot(self._connection, reports.made)

    def bundles(self, jobs: Collection[int] | None = None) -> dict[int, list[BundleRow]]:
        """The models that worked on each of these jobs, or of all; jobs from before version 7 are not among them."""
        return snapshot(self._connection, lambda c: bundles_of(c, jobs))

    def jobs(self, choice: JobChoice = "all", limit: int = jobs.ALL, after: int | None = None) -> list[JobRow]:
        """As `Store.jobs`."""
        return snapshot(self._connection, lambda c: jobs.list_jobs(c, choice, limit, after))

    def overview(self, opened: int, ended: int) -> Overview:
        """As `Store.overview`."""
        return self._overview(lambda c, work: reports.first_jobs(c, work, opened, ended))

    def overview_of(self, job: int) -> Overview:
        """As `Store.overview_of`."""
        return self._overview(lambda c, _: [jobs.known_job(c, job)])

    def page(self, choice: JobChoice, limit: int, after: int | None) -> Overview:
        """As `Store.page`."""
        return self._overview(lambda c, _: jobs.list_jobs(c, choice, limit, after))

    def _overview(self, choose: Callable[[sqlite3.Connection, OpenTotals], Sequence[JobRow]]) -> Overview:
        def look(connection: sqlite3.Connection) -> Overview:
            work = OpenTotals()
            work.look(connection, None)
            return reports.overview(connection, choose(connection, work), work)

        return snapshot(self._connection, look)

    def job(self, job: int) -> JobRow | None:
        """The job, or None if it is unknown."""
        return snapshot(self._connection, lambda c: jobs.find_job(c, job))

    def problems(self, job: int, limit: int, after: int) -> list[CaptionProblem]:
        """Up to `limit` records of the job's file that could not be read, behind the first `after`."""
        return snapshot(self._connection, lambda c: jobs.list_problems(c, job, limit, after))

    def profile_of(self, group: str) -> Profile:
        """The profile of a group."""
        return snapshot(self._connection, lambda c: samples.profile_of(c, group))

    def images(self, of: range) -> Mapping[int, ItemImages]:
        """The images that rows of the items `of` name, by item, and whether they are still wanted."""
        return snapshot(self._connection, lambda c: images.images(c, of, removal=True))

    def funnel(self, job: int | Collection[int] | None = None) -> FunnelCounts:
        """How the captions of a job, of several or of all jobs narrowed to samples, with reasons."""
        return snapshot(self._connection, lambda c: reports.funnel(c, job))

    def previews(self) -> list[PreviewsRow]:
        """As `Store.previews`."""
        return snapshot(self._connection, previews.every)

    def sample_page(self, wanted: Wanted, limit: int, after: Cursor, order: Order) -> SamplePage:
        """As `Store.sample_page`."""
        return snapshot(self._connection, lambda c: list_samples_by(c, wanted, limit, after, order))

    def item_page(self, wanted: Wanted, limit: int, after: Cursor, order: Order) -> ItemPage:
        """As `Store.item_page`."""
        return snapshot(self._connection, lambda c: list_items_by(c, wanted, limit, after, order))

    def timings(self) -> list[Timing]:
        """As `Store.timings`."""
        return snapshot(self._connection, reports.timings)

    def instance(self) -> str:
        """The random name of this database, or '' if no daemon has opened it yet."""
        return snapshot(self._connection, lambda c: meta.get(c, "instance")) or ""

    def caption_span(self) -> range:
        """The range from the first caption to the last."""
        return snapshot(self._connection, scores.span)

    def scored(
        self, of: range, wanted: Callable[[Sequence[ItemMark]], Collection[int]]
    ) -> tuple[list[ItemMark], list[ScoredItem]]:
        """The marks of the captions in `of`, and all scores of those that are `wanted`, as of one moment."""

        def ask(connection: sqlite3.Connection) -> tuple[list[ItemMark], list[ScoredItem]]:
            marks = scores.marks(connection, of)
            return marks, list(scores.scored(connection, wanted(marks)))

        return snapshot(self._connection, ask)

    def pair_images(self, items: Collection[int]) -> list[tuple[int, str, str]]:
        """The names of the two images of each of these captions whose pair is painted."""
        return snapshot(self._connection, lambda c: scores.pair_images(c, items))

    def item_story(self, item: int) -> ItemStory:
        """Everything known about an item. Raises InputError with code `unknown_item`."""
        return snapshot(self._connection, lambda c: samples.item_story(c, item))


def _up_to_date(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The database itself or, if its schema is older, an upgraded copy that SQLite deletes when it is closed."""
    if version_of(connection) == SCHEMA_VERSION:
        return connection
    copy = sqlite3.connect("", isolation_level=None)
    connection.backup(copy)
    migrate(copy)
    return copy
