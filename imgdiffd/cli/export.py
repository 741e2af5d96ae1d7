"""`imgdiffd export`: the finished samples of both products into one folder, as the dataset was published."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imgdiffd.cli.parameters import positive, settings_of, some
from imgdiffd.errors import ExportError

if TYPE_CHECKING:
    from imgdiffd.export.dataset import Written
    from imgdiffd.settings import Settings
    from imgdiffd.store import MadeRow, Reader


def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the dataset goes.")],
    _format: Annotated[Literal["release"], typer.Option("--format", help="The layout of the dataset.")] = "release",
    product: Annotated[
        Literal["replacement", "removal"] | None, typer.Option(help="Only this product; both where none is given.")
    ] = None,
    job: Annotated[int | None, typer.Option(metavar="JOB", parser=positive, help="Only this job.")] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", parser=some, help="Only samples of this profile.")
    ] = None,
    all_profiles: Annotated[
        bool, typer.Option("--all-profiles", help="Samples of several profiles in one dataset.")
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out samples whose images are missing or damaged.")
    ] = False,
) -> None:
    """Write the dataset, with or without a running daemon.

    The folder is new, empty, or that of an older export, of which nothing is left. Samples stand in the order of job,
    caption and region.
    """
    from imgdiffd.export.choice import BOTH, choose_jobs
    from imgdiffd.export.folder import refuse_place
    from imgdiffd.store import Reader

    settings = settings_of(context)
    refuse_place(folder, settings)
    products = (product,) if product else BOTH
    with Reader.open(settings.database) as reader:
        made = choose_jobs(reader.made(), job=job, profile=profile, all_profiles=all_profiles, products=products)
        written = _export(reader, settings, folder, made, products, skip_missing)
    _report(written, products, folder)
    _note(made, job)


def _export(
    reader: "Reader",
    settings: "Settings",
    folder: Path,
    made: Sequence["MadeRow"],
    products: Sequence[str],
    skip_missing: bool,
) -> "Written":
    from imgdiffd.export.choice import count_of
    from imgdiffd.export.dataset import export_dataset

    try:
        with _progress(sum(count_of(row, products) for row in made)) as progress:
            return export_dataset(
                reader,
                settings.images,
                folder,
                jobs=[row.job for row in made],
                products=products,
                skip_missing=skip_missing,
                progress=progress,
            )
    except OSError as error:
        raise ExportError(
            f"{folder}: cannot be written: {error.strerror or error}",
            hint="name a folder that you may write to, with room; a second try continues",
        ) from error


@contextmanager
def _progress(expected: int) -> Iterator[Callable[[int], object]]:
    """A bar while a person waits."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("samples"), *Progress.get_default_columns()[1:2], MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=expected)
        yield lambda count: bar.update(task, completed=count)


def _report(written: "Written", products: Sequence[str], folder: Path) -> None:
    from imgdiffd.errors import visible

    said = [_count(written.samples, "sample")] if "replacement" in products else []
    if written.removals or "replacement" not in products:
        said.append(_count(written.removals, "removal sample"))
    left_out = f"; left out {_count(written.left_out, 'sample')} without images" if written.left_out else ""
    older = f"; removed {_count(written.removed, 'file')} of an older export" if written.removed else ""
    print(visible(f"{' and '.join(said)} in {folder}{left_out}{older}"))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _note(made: Sequence["MadeRow"], job: int | None) -> None:
    """What the dataset lacks, for people."""
    from imgdiffd.job import TERMINAL_JOB_STATES

    if opened := sum(row.state not in TERMINAL_JOB_STATES for row in made):
        print(f"note: {opened} of these jobs are still open; export again when they are done", file=sys.stderr)
    if job is not None and (shared := made[0].duplicates):
        print(
            f"note: {shared} of the {made[0].captions + shared} captions of job {job} came before, in other jobs or "
            "lines; their samples are there",
            file=sys.stderr,
        )
