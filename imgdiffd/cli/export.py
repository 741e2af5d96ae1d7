"""`imgdiffd export`: finished samples into one folder, in the format that a trainer or a loader reads."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from imgdiffd.cli.parameters import number, positive, settings_of, some, whole
from imgdiffd.errors import ExportError, InputError

if TYPE_CHECKING:
    from imgdiffd.export.dataset import Written
    from imgdiffd.export.finishing import Finishing
    from imgdiffd.export.sample import Choice
    from imgdiffd.settings import Settings
    from imgdiffd.store import MadeRow, Reader

_Layout = Literal[
    "release",
    "llava",
    "mgm",
    "internvl",
    "trl",
    "llama-factory",
    "swift",
    "parquet",
    "webdataset",
    "data-juicer",
    "coco",
]


class _Kind(StrEnum):  # as `export.sample.KINDS`, which would be slow to import
    REPLACEMENT = "replacement"
    REMOVAL = "removal"
    ADDITION = "addition"
    NO_DIFFERENCE = "no_difference"
    HARD_NEGATIVE = "hard_negative"


def _share(text: object) -> float:
    """A share, typed or a default. Raises ValueError."""
    share = number(text, "a share such as 0.02")
    if not 0 <= share <= 1:
        raise ValueError(f"{text} is not a share; give one from 0 to 1, such as 0.02")
    return share


def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the dataset goes.")],
    layout: Annotated[
        _Layout,
        # Typer would list them on one line of 99 columns.
        typer.Option("--format", metavar="FORMAT", help=f"Who is to read the dataset: {', '.join(get_args(_Layout))}."),
    ] = "release",
    kind: Annotated[
        list[_Kind] | None,
        typer.Option(
            metavar="KIND",
            help=f"Only samples of this kind: {', '.join(_Kind)}. May be repeated; replacement and removal where none "
            "is given.",
        ),
    ] = None,
    job: Annotated[int | None, typer.Option(metavar="JOB", parser=positive, help="Only this job.")] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", parser=some, help="Only samples of this profile.")
    ] = None,
    all_profiles: Annotated[
        bool, typer.Option("--all-profiles", help="Samples of several profiles in one dataset.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(metavar="N", parser=positive, help="At most this many samples of each kind.")
    ] = None,
    min_score: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only samples with at least this score; may be repeated."),
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=_share,
            help="Share of the captions whose samples are for validation: 0.02 where none is given.",
        ),
    ] = None,
    images: Annotated[
        Literal["joined", "two"] | None,
        typer.Option(help="A pair as one image with a black bar, or as two, where the format has a choice."),
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out samples whose images are missing or damaged.")
    ] = False,
    others: Annotated[
        Path | None,
        typer.Option(
            "--with", metavar="MIX.json", help="Shuffle the samples for training into this instruction set: mix.json."
        ),
    ] = None,
    repeat: Annotated[
        int | None, typer.Option(metavar="N", parser=positive, help="How often each sample is in the mix: once.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", parser=whole, help="Another seed, another order of the mix: 0.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON, for programs.")] = False,
) -> None:
    """Write the dataset, with or without a running daemon.

    The folder is new, empty, or that of an older export, of which nothing is left. Samples stand in the order of job,
    caption and region, and those of one caption are all for training or all for validation.
    """
    from imgdiffd.cli import ending
    from imgdiffd.export.choice import BOTH, choose_jobs
    from imgdiffd.export.folder import refuse_place
    from imgdiffd.export.formats.table import FORMATS
    from imgdiffd.export.sample import VALIDATION, Choice
    from imgdiffd.method.score_names import bounds_of
    from imgdiffd.store import Reader

    settings = settings_of(context)
    refuse_place(folder, settings)
    if validation and not FORMATS[layout].split:
        raise ExportError(
            f"the format {layout} has no place for a split", hint="leave --validation out, or choose another --format"
        )
    try:
        least = bounds_of(min_score or ())
    except InputError as error:
        raise ExportError(f"--min-score: {error.message}", hint=error.hint) from error
    kinds = tuple(dict.fromkeys(str(each) for each in kind or BOTH))
    mixing = ending.mixing_of(layout, others, repeat, seed)
    with Reader.open(settings.database) as reader:
        made = choose_jobs(reader.made(), job=job, profile=profile, all_profiles=all_profiles, kinds=kinds)
        share = VALIDATION if validation is None else validation
        choice = Choice([row.job for row in made], kinds, limit, least, share)
        with _named_errors(folder), _progress(made, choice) as (progress, ending_progress):
            options = list(ending.typed_options(context))
            finishing = ending.finishing_of(reader, made, layout, options, mixing, ending_progress)
            written = _export(reader, settings, folder, choice, images, skip_missing, finishing, progress)
    if as_json:
        told = {"samples": dict(written.samples), "left_out": dict(written.left_out), "removed": written.removed}
        print(json.dumps(told | ending.found(finishing), indent=2))
    else:
        _report(written, kinds, folder)
        ending.report(finishing, folder)
    _note(made, job)


def _export(
    reader: "Reader",
    settings: "Settings",
    folder: Path,
    choice: "Choice",
    shown: Literal["joined", "two"] | None,
    skip_missing: bool,
    finishing: "Finishing",
    progress: Callable[[int], object],
) -> "Written":
    from imgdiffd.export.dataset import export_dataset

    return export_dataset(
        reader,
        settings.images,
        folder,
        layout=finishing.layout,
        choice=choice,
        shown=shown,
        skip_missing=skip_missing,
        finishing=finishing,
        progress=progress,
    )


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"{folder}: cannot be written: {error.strerror or error}",
            hint="name a folder that you may write to, with room; a second try continues",
        ) from error


@contextmanager
def _progress(
    made: Sequence["MadeRow"], choice: "Choice"
) -> Iterator[tuple[Callable[[int], object], Callable[[str, float], object]]]:
    """A bar while a person waits: for the samples written, then for what is done with all of them, by its share."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from imgdiffd.export.choice import count_of

    counts = [sum(count_of(row, [kind]) for row in made) for kind in choice.kinds]
    expected = sum(counts if choice.limit is None else (min(count, choice.limit) for count in counts))
    columns = (
        TextColumn("{task.description}"),
        *Progress.get_default_columns()[1:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("samples", total=expected)
        yield (
            lambda count: bar.update(task, completed=count),
            lambda what, share: bar.update(task, description=what, completed=round(share * expected)),
        )


_CALLED = {
    "replacement": "sample",
    "removal": "removal sample",
    "addition": "addition",
    "no_difference": "pair alike",
    "hard_negative": "hard negative",
}


def _report(written: "Written", kinds: Sequence[str], folder: Path) -> None:
    from imgdiffd.errors import visible

    counts = {kind: written.samples.get(kind, 0) for kind in kinds}
    shown = {kind: count for kind, count in counts.items() if count or kind == kinds[0]}
    said = " and ".join(_count(count, _CALLED[kind]) for kind, count in shown.items())
    left_out = "".join(f"; left out {_count(count, 'sample')} {why}" for why, count in written.left_out.items())
    older = f"; removed {_count(written.removed, 'file')} of an older export" if written.removed else ""
    print(visible(f"{said} in {folder}{left_out}{older}"))


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
