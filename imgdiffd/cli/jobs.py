"""The commands that talk to a running daemon about its jobs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgdiffd.cli.parameters import Job, OnlyJob, positive, profile_names, settings_of, whole
from imgdiffd.cli.usage import UsageError
from imgdiffd.errors import DaemonError

if TYPE_CHECKING:
    from imgdiffd.api.client import Client
    from imgdiffd.status import Status


def _client(context: typer.Context) -> "Client":
    from imgdiffd.api.client import Client

    return Client(settings_of(context).socket_path)


def submit(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Caption files, in any format that is read.")],
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            autocompletion=profile_names,
            help="A profile's name or .toml file; the daemon's own where none is given.",
        ),
    ] = None,
    priority: Annotated[
        int, typer.Option(metavar="N", parser=whole, help="Higher goes first; below 0 is background work.")
    ] = 0,
) -> None:
    """Send caption files to the daemon; each becomes a job."""
    if profile is not None and ("/" in profile or profile.endswith(".toml")):
        profile = str(Path(profile).expanduser().absolute())  # the daemon reads it, and stands elsewhere
    with _client(context) as client:
        for path in files:
            job = client.submit(path, profile=profile, priority=priority)
            if job.duplicate_of is not None:
                print(f"{path}: the same content as job {job.duplicate_of}; nothing to do")
            else:
                counts = f"{job.captions} captions, {job.duplicates} duplicates, {job.problems} unreadable"
                print(f"{path}: job {job.id}, {counts}")


def status(
    context: typer.Context,
    job: OnlyJob = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show devices, jobs and progress once."""
    from rich.console import Console

    from imgdiffd.cli.terminal import Rates, status_view

    with _client(context) as client:
        found = client.status()
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        Console().print(status_view(found, Rates(), job))


def watch(context: typer.Context, job: OnlyJob = None) -> None:
    """Show progress live until the jobs are done."""
    from rich.console import Console

    from imgdiffd.cli.terminal import follow
    from imgdiffd.job import TERMINAL_JOB_STATES

    def finished(status: "Status") -> bool:
        jobs = [each for each in status.jobs if job in {None, each.id}]
        if job is not None and not jobs:
            raise DaemonError(f"there is no job {job}", hint="`imgdiffd status` lists them")
        return bool(jobs) and all(each.state in TERMINAL_JOB_STATES for each in jobs)

    with _client(context) as client:
        follow(client.status, finished, Console(), job)


def funnel(context: typer.Context, job: OnlyJob = None) -> None:
    """Show how captions narrowed down to samples, with the reasons."""
    from rich.console import Console

    from imgdiffd.cli.terminal import funnel_table

    with _client(context) as client:
        Console().print(funnel_table(client.funnel(job)))


def explain(
    context: typer.Context,
    item: Annotated[int, typer.Argument(metavar="ITEM", parser=positive, help="The caption's number.")],
) -> None:
    """Print everything that is known about one caption, as JSON.

    That is every attempt with its texts, scores and boxes, and the reason why it was kept or dropped.
    """
    with _client(context) as client:
        print(json.dumps(client.explain(item), indent=2, ensure_ascii=False))


def pause(context: typer.Context, job: OnlyJob = None) -> None:
    """Give the devices no more captions, across restarts too.

    Without JOB, nothing at all is started until `imgdiffd resume`.
    """
    if not _changed(context, "pause", job):
        print("nothing is started until `imgdiffd resume`")


def resume(context: typer.Context, job: OnlyJob = None) -> None:
    """Continue what was paused.

    Without JOB, this ends a pause of all work; a job that was paused by its number stays paused.
    """
    if not _changed(context, "resume", job):
        print("work goes on")


def cancel(context: typer.Context, job: Job) -> None:
    """End a job, or what is left of its removals.

    What is done stays.
    """
    _changed(context, "cancel", job)


def _changed(context: typer.Context, order: str, job: int | None) -> bool:
    """Give `order` about one job and print the state it is in now, or about all work; returns whether it was one."""
    with _client(context) as client:
        if job is None:
            client.set_paused(order == "pause")
        else:
            print(f"job {job} is {client.change(job, order).state}")
    return job is not None


def retry(
    context: typer.Context,
    job: Annotated[int | None, typer.Argument(metavar="JOB", parser=positive, help="Only those of this job.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Those of every job.")] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="REASON", help="Only those that failed for it, such as broke_generate.")
    ] = None,
) -> None:
    """Try failed captions and removals again.

    Name a job, or give --failed for those of every job.
    """
    if failed == (job is not None):
        raise UsageError("give either a job's number or --failed, which retries those of every job", context)
    with _client(context) as client:
        print(f"{client.retry(job, reason)} captions and removals are tried again")
