"""The commands that bring jobs to a running daemon and give orders about them."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from imgdiffd.cli.parameters import AllJobs, Jobs, client_of, settings_of, some
from imgdiffd.cli.usage import PROGRAM, UsageError
from imgdiffd.errors import ImgdiffdError, RefusedError, visible


def pause(context: typer.Context, jobs: Jobs = None, every: AllJobs = False) -> None:
    """Give the devices no more captions, across restarts too.

    Without JOB, nothing at all is started until `imgdiffd resume`; --all pauses each job that is active now.
    """
    if not _change(context, "pause", jobs, every):
        with client_of(context) as client:
            client.set_paused(True)
        print("nothing is started until `imgdiffd resume`")


def resume(context: typer.Context, jobs: Jobs = None, every: AllJobs = False) -> None:
    """Continue what was paused.

    Without JOB, this ends a pause of all work; a job that was paused by its number stays paused, until it is resumed by
    its number or with --all.
    """
    changed = _change(context, "resume", jobs, every)
    with client_of(context) as client:
        if not changed:
            client.set_paused(False)
            print("work goes on")
        elif client.status().paused:
            print("but all work is paused: `imgdiffd resume` alone ends that")


def cancel(context: typer.Context, jobs: Jobs = None, every: AllJobs = False) -> None:
    """End jobs, or what is left of their removals.

    What is done stays. --all cancels every job that has not ended.
    """
    if not _change(context, "cancel", jobs, every):
        raise UsageError("give numbers of jobs, or --all for every job that has not ended", context)


_DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


def _change(context: typer.Context, order: str, jobs: list[int] | None, every: bool) -> bool:
    """Give `order` about these jobs, or about `every` one that it can change; returns False where neither is given."""
    if jobs and every:
        raise UsageError("give either numbers of jobs or --all", context)
    if every:
        with client_of(context) as client:
            count = client.change_all(order)
        print(f"{_jobs(count)} {'was' if count == 1 else 'were'} {_DONE[order]}")
    elif jobs:
        with client_of(context) as client:
            each_job(jobs, lambda job: f"job {job} is {client.change(job, order).state}")
    return every or bool(jobs)


def each_job(jobs: list[int], do: Callable[[int], str]) -> None:
    """`do` something about each job and print what that says.

    A job that is refused is named and costs the others nothing; at the end, typer.Exit is raised with 1.
    """
    refused = False
    for job in dict.fromkeys(jobs):
        try:
            print(do(job))
        except RefusedError as error:
            print(visible(f"{PROGRAM}: {error}"), file=sys.stderr)
            refused = True
    if refused:
        raise typer.Exit(1)


def _jobs(count: int) -> str:
    return f"{count or 'no'} job{'' if count == 1 else 's'}"


def _reasons(context: typer.Context) -> list[tuple[str, str]]:
    """Why captions have failed, for shell completion."""
    from imgdiffd.api.client import Client

    try:
        with Client(settings_of(context).socket_path, timeout_s=2.0) as client:
            return [(reason, f"{count} failed") for reason, count in client.failures().items()]
    except ImgdiffdError:  # without a daemon the shell offers nothing; the command itself says why
        return []


def retry(
    context: typer.Context,
    jobs: Jobs = None,
    every: Annotated[bool, typer.Option("--all", "--failed", help="Those of every job.")] = False,
    reason: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            parser=some,
            autocompletion=_reasons,
            help="Only those that failed for it, such as broke_generate.",
        ),
    ] = None,
) -> None:
    """Try failed captions and removals again.

    Name jobs, or give --all for those of every job. What was cancelled stays cancelled.
    """
    if every == bool(jobs):
        raise UsageError("give either numbers of jobs or --all, which retries those of every job", context)
    with client_of(context) as client:
        if every:
            print(f"{_tried(client.retry(None, reason))} again")
        else:
            each_job(jobs or [], lambda job: f"job {job}: {_tried(client.retry(job, reason))} again")


def _tried(count: int) -> str:
    return f"{count} captions and removals are tried" if count != 1 else "1 caption or removal is tried"
