"""The commands that back the database up, put a backup back, and delete jobs."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgdiffd.cli.jobs import each_job
from imgdiffd.cli.parameters import client_of, listens, positive, settings_of
from imgdiffd.errors import counted, visible

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from imgdiffd.api.client import Client
    from imgdiffd.daemon.pruning import Pruning
    from imgdiffd.status import DeletedJob

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def age(text: str) -> float:
    """Seconds, from an age such as 30d, 12h or 2w. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an age; give a number and s, m, h, d or w, such as 30d")
    return int(match[1]) * _UNITS_S[match[2]]


DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")]


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; an existing one is never replaced.")],
) -> None:
    """Copy the database to FILE, whether a daemon runs or not.

    The images are not part of it: copy the folder `pictures` as well, after the database, with rsync or the like.
    """
    from imgdiffd.export.folder import refuse_place
    from imgdiffd.store.backup import back_up

    settings = settings_of(context)
    refuse_place(file, settings, hint="name a file elsewhere: the daemon would take it for one of its own")
    back_up(settings.database, file)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB; the images in {settings.images} are not part of it")


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `imgdiffd backup` wrote.")],
) -> None:
    """Put a backup in the place of the database, while no daemon runs.

    The database that was there is kept beside it.
    """
    from imgdiffd.store.restore import restore as put_back

    database = settings_of(context).database
    kept = put_back(file, database)
    print(f"{database} is {file} now{f'; the old one is {kept}' if kept else ''}")


def delete(
    context: typer.Context,
    jobs: Annotated[list[int], typer.Argument(metavar="JOB", parser=positive, help="The numbers of ended jobs.")],
    dry_run: DryRun = False,
) -> None:
    """Delete ended jobs with their captions, samples and images.

    What was exported stays, and so does the caption file in the inbox. It cannot be undone.
    """
    with _deleting(context) as daemon:
        each_job(jobs, lambda job: _told(daemon.delete(job, dry_run=dry_run), dry_run))


def prune(
    context: typer.Context,
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="AGE", parser=age, help="Since a job's end: 30d, 12h, 2w.")
    ],
    dry_run: DryRun = False,
) -> None:
    """Delete the jobs that ended long ago with their captions, samples and images.

    Jobs of which something still waits stay. `keep_jobs_days` in the settings does it by itself.
    """
    with _deleting(context) as daemon:
        jobs = daemon.prune(older_than, dry_run=dry_run)
    for job in jobs:
        print(_told(job, dry_run))
    if not jobs:
        print("no job ended that long ago")


@contextmanager
def _deleting(context: typer.Context) -> "Iterator[Client | _Here]":
    """Whoever deletes: the daemon or, where none listens, this process, whose lock keeps one from starting."""
    settings = settings_of(context)
    if listens(settings.socket_path):
        with client_of(context) as client:
            yield client
        return
    from anyio.from_thread import start_blocking_portal

    from imgdiffd.daemon.pruning import without_daemon

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(without_daemon(settings)) as pruning:
        yield _Here(portal, pruning)


class _Here:
    """The methods of `api.client.Client` that delete, done in this process."""

    def __init__(self, portal: "BlockingPortal", pruning: "Pruning") -> None:
        self._portal = portal
        self._pruning = pruning

    def delete(self, job: int, *, dry_run: bool) -> "DeletedJob":
        """Delete an ended job with its captions, samples and images."""
        (deleted,) = self._portal.call(partial(self._pruning.delete_here, [job], dry_run=dry_run))
        return deleted

    def prune(self, older_than_s: float, *, dry_run: bool) -> "Sequence[DeletedJob]":
        """Delete every job that ended longer ago and of which nothing waits."""
        old = self._portal.call(self._pruning.ended, older_than_s)
        return self._portal.call(partial(self._pruning.delete_here, old, dry_run=dry_run))


def _told(job: "DeletedJob", dry_run: bool) -> str:
    would = "would be deleted" if dry_run else "is deleted"
    brought = f"{counted(job.captions, 'caption')}, {counted(job.samples, 'sample')}"
    return f"job {job.id} ({visible(repr(job.name))}, {brought}) {would}"
