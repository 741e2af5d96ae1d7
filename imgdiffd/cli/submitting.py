"""The commands that send caption files to a running daemon and show what it could not read of them."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imgdiffd.cli.parameters import client_of, positive, profile_names, some
from imgdiffd.cli.parameters import priority as urgency
from imgdiffd.cli.usage import PROGRAM, UsageError
from imgdiffd.errors import DaemonError, counted, visible

if TYPE_CHECKING:
    from imgdiffd.api.client import Client


def submit(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Caption files, folders of them, pipes, or - for the standard input."),
    ],
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            parser=some,
            autocompletion=profile_names,
            help="A profile's name or .toml file; the daemon's own where none is given.",
        ),
    ] = None,
    priority: Annotated[
        int, typer.Option(metavar="N", parser=urgency, help="Higher goes first; below 0 is background work.")
    ] = 0,
    field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            parser=some,
            help="The key or column with the captions, such as title or meta.en; or a column's number.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            parser=some,
            help="What the file is to be called; its ending tells the format, as in a.jsonl.",
        ),
    ] = None,
) -> None:
    """Send caption files to the daemon; each becomes a job.

    A file that is refused is named; the others are sent all the same, and the exit status is 1.
    """
    if profile is not None and ("/" in profile or profile.endswith(".toml")):
        profile = str(Path(profile).expanduser().absolute())  # the daemon reads it, and stands elsewhere
    if name is not None and (len(files) > 1 or os.path.isdir(files[0])):
        raise UsageError("--name is for one file alone", context)
    options: dict[str, Any] = {"profile": profile, "priority": priority, "field": field, "name": name}
    with client_of(context) as client:
        sent = [_send(client, given, options) for given in files]
    if not all(sent):
        raise typer.Exit(1)


def _send(client: "Client", given: str, options: dict[str, Any]) -> bool:
    """Send what an argument stands for, one file or those of a folder; returns whether all of it was taken."""
    try:
        paths = _files_at(given)
    except DaemonError as error:
        return _refused(given, error)
    return all([_send_file(client, path, options) for path in paths])


def _send_file(client: "Client", path: Path, options: dict[str, Any]) -> bool:
    try:
        job = client.submit(path, **options)
    except DaemonError as error:
        if not client.alive():
            raise
        return _refused(str(path), error)
    if job.duplicate_of is not None:
        print(f"{visible(str(path))}: the same content as job {job.duplicate_of}; nothing to do")
    else:
        counts = (
            f"{counted(job.captions, 'caption')}, {counted(job.duplicates, 'duplicate')}, {job.problems} unreadable"
        )
        print(
            f"{visible(str(path))}: job {job.id}, {counts}{f' (`{PROGRAM} problems {job.id}`)' if job.problems else ''}"
        )
    return True


def _refused(given: str, error: DaemonError) -> bool:
    given = given.encode("utf-8", "backslashreplace").decode("utf-8")  # as errors quote it
    print(visible(f"{PROGRAM}: {error if given in str(error) else f'{given}: {error}'}"), file=sys.stderr)
    return False


def _files_at(given: str) -> list[Path]:
    """The file that an argument names, or the caption files in the folder. Raises DaemonError where there is none."""
    from imgdiffd.captions import ENDINGS, is_caption_name

    if not given:
        raise DaemonError("'' names no file", hint="name a caption file, a folder, or - for the standard input")
    path = Path(given)
    if not path.is_dir():
        return [path]
    try:
        here = sorted(each for each in path.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise DaemonError(f"{path}: {error.strerror}", hint="name a folder that you may read") from error
    wanted = [each for each in here if each.is_file() and is_caption_name(each.name)]
    if not wanted:
        hint = f"caption files end in {', '.join(ENDINGS)}; name a file with another ending itself"
        raise DaemonError(f"the folder {path} has no caption file in it", hint=hint)
    if left_out := len(here) - len(wanted):
        why = "since they are no files or do not end like caption files"
        print(f"{PROGRAM}: {visible(str(path))}: left out, {why}: {left_out}", file=sys.stderr)
    return wanted


def problems(
    context: typer.Context,
    job: Annotated[int, typer.Argument(metavar="JOB", parser=positive, help="The job's number.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show the records of a job's file that have no usable caption, each with the reason."""
    from imgdiffd.captions import has_lines
    from imgdiffd.cli.offline import answers_of

    with answers_of(context) as answers:
        found = answers.every_problem(job)
        if as_json:
            print(json.dumps([problem.model_dump() for problem in found], indent=2, ensure_ascii=False))
            return
        about = answers.job(job)
        unit = "line" if has_lines(about.name) else "record"
        for problem in found:
            print(visible(f"{unit} {problem.line}: {problem.message} ({problem.reason})"))
        if about.error:
            print(visible(f"job {job} failed: {about.error}"))
        elif not about.problems:
            print(f"every record of job {job} that was read has a caption")
