"""The commands that show what the daemon does and has done: status, watch, jobs, funnel."""

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from imgdiffd.cli.parameters import OnlyJob, client_of, positive, whole
from imgdiffd.job import TERMINAL_JOB_STATES, JobChoice

if TYPE_CHECKING:
    from imgdiffd.status import Status

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_CHOICES: tuple[str, ...] = get_args(JobChoice)


def status(context: typer.Context, job: OnlyJob = None, as_json: _AsJson = False) -> None:
    """Show devices, jobs and progress once."""
    from imgdiffd.cli.offline import answers_of
    from imgdiffd.cli.screen import Rates, status_view
    from imgdiffd.cli.terminal import Screen

    with answers_of(context) as answers:
        found = answers.status(job)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        Screen().print(status_view(found, Rates(), job))


def watch(context: typer.Context, job: OnlyJob = None) -> None:
    """Show progress live until the job is done; without JOB, until none is open."""
    from imgdiffd.cli.screen import follow
    from imgdiffd.cli.terminal import Screen

    with client_of(context) as client:
        follow(lambda: client.status(job), lambda found: is_over(found, job), Screen(), job)


def is_over(found: "Status", job: int | None) -> bool:
    """Whether the job has ended or, where none is named, every job. A daemon that is starting knows of none."""
    states = found.job_counts if job is None else {each.state for each in found.jobs}
    return not found.starting and TERMINAL_JOB_STATES.issuperset(states)


def jobs(
    context: typer.Context,
    state: Annotated[JobChoice, typer.Option(metavar="STATE", help=f"Only these: {', '.join(_CHOICES[1:])}.")] = "all",
    limit: Annotated[int, typer.Option(metavar="N", parser=positive, help="At most so many.")] = 50,
    after: Annotated[
        int | None, typer.Option(metavar="N", parser=whole, help="Where the list before this one ended.")
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """List jobs: the open ones, then those that have ended, newest first."""
    from imgdiffd.api.client import PAGE
    from imgdiffd.cli.offline import answers_of
    from imgdiffd.cli.screen import jobs_table
    from imgdiffd.cli.terminal import wide_console

    with answers_of(context) as answers:
        page = answers.jobs(state, limit=min(limit, PAGE), after=after)
        found = page.jobs
        while page.next is not None and len(found) < limit:
            page = answers.jobs(state, limit=min(limit - len(found), PAGE), after=page.next)
            found += page.jobs
    if as_json:
        print(page.model_copy(update={"jobs": found}).model_dump_json(indent=2))
        return
    wide_console().print(jobs_table(found) if found else "no such jobs")
    if page.next is not None:
        only = "" if state == "all" else f" --state {state}"
        print(f"{len(found):,} of {page.total:,}; `imgdiffd jobs{only} --after={page.next}` goes on")


def funnel(context: typer.Context, job: OnlyJob = None, as_json: _AsJson = False) -> None:
    """Show how captions narrowed down to samples, with the reasons."""
    from imgdiffd.cli.offline import answers_of
    from imgdiffd.cli.terminal import funnel_table, wide_console

    with answers_of(context) as answers:
        found = answers.funnel(job)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        wide_console().print(funnel_table(found))
