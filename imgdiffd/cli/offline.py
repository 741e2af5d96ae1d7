"""What the commands that only read are told where no daemon answers: the same, from the database itself."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from imgdiffd import __version__
from imgdiffd.cli.parameters import client_of, listens, settings_of
from imgdiffd.cli.usage import PROGRAM
from imgdiffd.daemon.views import (
    OPEN,
    RECENT,
    Pace,
    funnel_view,
    job_views,
    open_jobs,
    page_view,
    problem_page,
    removal_view,
    seconds_per_item,
    story_view,
)
from imgdiffd.errors import unknown_job
from imgdiffd.images.retention import named, why_gone
from imgdiffd.images.sweep import missing
from imgdiffd.job import JobChoice
from imgdiffd.settings import Settings
from imgdiffd.status import Funnel, JobPage, JobView, ProblemView, Status
from imgdiffd.store import JobRow, Overview, PreviewsRow, Reader
from imgdiffd.store.found import Cursor, ItemPage, Order, SamplePage, Wanted, cursor_of

if TYPE_CHECKING:
    from imgdiffd.api.client import Client


class Offline:
    """The methods of `api.client.Client` that only read, over the database. They raise InputError for the unknown."""

    def __init__(self, reader: Reader, settings: Settings) -> None:
        self._reader = reader
        self._settings = settings

    def status(self, job: int | None = None) -> Status:
        """Jobs and their progress, and that nothing works on them."""
        seen = self._reader.overview(OPEN, RECENT) if job is None else self._reader.overview_of(job)
        return Status(
            version=__version__,
            pid=0,
            uptime_s=0.0,
            ready=False,
            paused=seen.paused,
            problems=("no daemon answers: nothing is worked on",),
            bundle=self._settings.bundle,
            inbox=str(self._settings.inbox_folder),
            open_tasks=0,
            steals=0,
            devices=(),
            jobs=self._views(seen),
            job_counts=dict(seen.counts),
            open=open_jobs(seen.queue, None),
            removal=removal_view(seen.removal),
        )

    def jobs(self, state: JobChoice = "all", *, limit: int = 100, after: int | None = None) -> JobPage:
        """As the daemon lists them, but that nothing has an ETA."""
        seen = self._reader.page(state, limit + 1, after)
        return page_view(seen, state, limit, self._views(seen))

    def job(self, job: int) -> JobView:
        """One job."""
        return self._views(self._reader.overview_of(job))[0]

    def every_problem(self, job: int) -> Iterator[ProblemView]:
        """All records of the job's file that have no usable caption."""
        row = self._known(job)
        yield from problem_page(row, self._reader.problems(job, row.problems, 0), 0).problems

    def funnel(self, job: int | None = None) -> Funnel:
        """How captions narrowed to samples, with reasons; of all jobs where none is named."""
        if job is not None:
            self._known(job)
        return funnel_view(self._reader.funnel(job))

    def previews(self) -> list[PreviewsRow]:
        """What previews of half-painted pairs show: a row for each profile, bundle and step."""
        return self._reader.previews()

    def samples(
        self, wanted: Wanted | None = None, *, limit: int = 100, after: str | None = None, order: Order = "newest"
    ) -> SamplePage:
        """As the daemon lists them."""
        return self._reader.sample_page(wanted or Wanted(), limit, cursor_of(after) if after else Cursor(), order)

    def items(
        self, wanted: Wanted | None = None, *, limit: int = 100, after: str | None = None, order: Order = "newest"
    ) -> ItemPage:
        """As the daemon lists them."""
        return self._reader.item_page(wanted or Wanted(), limit, cursor_of(after) if after else Cursor(), order)

    def explain(self, item: int) -> dict[str, Any]:
        """Everything known of one caption: attempts, scores, regions, samples."""
        story = self._reader.item_story(item)
        rows = self._reader.images(range(story.item, story.item + 1))[story.item]
        absent = missing(self._settings.images, named(rows))
        return story_view(story, {name: why_gone(rows, name, self._settings.keep_pictures) for name in absent})

    def _known(self, job: int) -> JobRow:
        row = self._reader.job(job)
        if row is None:
            raise unknown_job(job)
        return row

    def _views(self, seen: Overview) -> tuple[JobView, ...]:
        profiles = {group: self._reader.profile_of(group) for group in {row.group for row in seen.rows}}
        return job_views(seen.rows, seen.progress, profiles, Pace(seconds_per_item(seen.timings)))


@contextmanager
def answers_of(context: typer.Context) -> Iterator["Client | Offline"]:
    """Whoever answers questions: the daemon or, where none listens, the database, which stderr is told in a line."""
    settings = settings_of(context)
    database = settings.database
    if listens(settings.socket_path) or not database.exists():
        with client_of(context) as client:
            yield client
        return
    print(f"{PROGRAM}: no daemon answers; read from {database}", file=sys.stderr)
    with Reader.open(database) as reader:
        yield Offline(reader, settings)
