"""The commands that bring jobs to a running daemon and give orders about them."""

from pathlib import Path
from typing import Annotated

import typer

from imgdiffd.cli.parameters import Job, OnlyJob, client_of, positive, profile_names, whole
from imgdiffd.cli.usage import UsageError


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
    with client_of(context) as client:
        for path in files:
            job = client.submit(path, profile=profile, priority=priority)
            if job.duplicate_of is not None:
                print(f"{path}: the same content as job {job.duplicate_of}; nothing to do")
            else:
                counts = f"{job.captions} captions, {job.duplicates} duplicates, {job.problems} unreadable"
                print(f"{path}: job {job.id}, {counts}")


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
    with client_of(context) as client:
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
    with client_of(context) as client:
        print(f"{client.retry(job, reason)} captions and removals are tried again")
