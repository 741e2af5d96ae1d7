"""The database for programs that only read it: exports, the contact sheet, a look at a finished run."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from imgdiffd.errors import StoreError
from imgdiffd.job import JobChoice
from imgdiffd.method.removal import RemovalSample
from imgdiffd.store import jobs, reports, samples
from imgdiffd.store.connection import check, configure
from imgdiffd.store.erasures import removal_samples
from imgdiffd.store.migration import SCHEMA_VERSION, migrate, version_of
from imgdiffd.store.read_pool import snapshot
from imgdiffd.store.rows import FunnelCounts, ItemStory, JobRow, SampleRow

PAGE = 500  # samples per query


class Reader:
    """A database read without a daemon, or beside one: no lock, no writes, no event loop."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator["Reader"]:
        """Open the database at `path`. Raises StoreError if it does not exist, ConfigurationError if it is not ours."""
        if not path.exists():
            raise StoreError(f"{path}: no such database", hint="start the daemon once, or give another path")
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                check(connection, path)
                with closing(_up_to_date(connection)) as current:
                    configure(current, writer=False)
                    yield cls(current)
        except sqlite3.Error as error:
            raise StoreError(
                f"{path}: cannot be read: {error}", hint="start the daemon, or read it as its owner"
            ) from error

    def samples(self, job: int | None = None) -> Iterator[SampleRow]:
        """All samples in order of id, read page by page."""
        after = 0
        while page := snapshot(self._connection, partial(samples.list_samples, job=job, after=after, limit=PAGE)):
            yield from page
            after = page[-1].id

    def removal_samples(self, job: int | None = None) -> Iterator[RemovalSample]:
        """All removal samples in order of item, image and object, read page by page."""
        after = 0
        while page := snapshot(self._connection, partial(removal_samples, job=job, after=after, limit=PAGE)):
            for _, found in page:
                yield from found
            after, _ = page[-1]

    def jobs(self, choice: JobChoice = "all", limit: int = jobs.ALL, after: int | None = None) -> list[JobRow]:
        """As `Store.jobs`."""
        return snapshot(self._connection, lambda c: jobs.list_jobs(c, choice, limit, after))

    def funnel(self, job: int | None = None) -> FunnelCounts:
        """How captions narrowed to samples, with reasons."""
        return snapshot(self._connection, lambda c: reports.funnel(c, job))

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
