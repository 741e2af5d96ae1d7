"""`imgdiffd import`: a published dataset into the database, for looking, statistics and exports."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgdiffd.cli.parameters import settings_of, some
from imgdiffd.cli.usage import PROGRAM
from imgdiffd.errors import counted, visible

if TYPE_CHECKING:
    from imgdiffd.importing.release import Imported


def import_(
    context: typer.Context,
    release: Annotated[
        Path, typer.Argument(metavar="RELEASE", help="The dataset's folder: its lists, and images or ZIP archives.")
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", parser=some, help="What the job is called, if not like the folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Read a dataset in the published layout into a job, while no daemon runs.

    It takes what `imgdiffd export` writes and what Img-Diff's authors have published. All of it appears at once, or
    nothing. Records that cannot be used are counted by reason; `imgdiffd problems` names them.
    """
    from imgdiffd.importing.release import import_release

    settings = settings_of(context)
    with _progress() as progress:
        done = import_release(release, settings.database, settings.images, name=name, progress=progress)
    if as_json:
        fields = ("job", "samples", "removals", "left_out", "other_questions", "known")
        print(json.dumps({field: getattr(done, field) for field in fields}, indent=2))
    elif done.known:
        print(visible(f"{release}: the same content as job {done.job}; nothing to do"))
    else:
        _report(release, done)


def _report(release: Path, done: "Imported") -> None:
    said = f"{counted(done.samples, 'sample')} and {counted(done.removals, 'removal sample')}"
    print(visible(f"{release}: job {done.job}, {said}"))
    if done.left_out:
        reasons = ", ".join(f"{reason} {number}" for reason, number in done.left_out.items())
        number = sum(done.left_out.values())
        print(f"left out {counted(number, 'record')}: {reasons} (`{PROGRAM} problems {done.job}`)")
    if done.other_questions:
        records = counted(done.other_questions, "record")
        print(f"note: {records} had another question than the published one, which is not kept", file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], object]]:
    """A bar while a person waits."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("records"), *Progress.get_default_columns()[1:2], MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
