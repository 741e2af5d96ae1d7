"""`imgdiffd statistics`: a dataset in figures, as text, JSON and a page."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgdiffd.cli.parameters import positive, settings_of, some, whole

if TYPE_CHECKING:
    from rich.console import Console

    from imgdiffd.statistics.report import Histogram, KindStatistics, Statistics


def _at_least_none(text: object) -> int:
    if (number := whole(text)) < 0:
        raise ValueError(f"{number} is too small; give one from 0")
    return number


def statistics(
    context: typer.Context,
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="PLACE",
            help="A database, or a folder in the published format; the settings' database where none is given.",
        ),
    ] = None,
    job: Annotated[int | None, typer.Option(metavar="JOB", parser=positive, help="Only this job.")] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", parser=some, help="Only samples of this profile.")
    ] = None,
    all_profiles: Annotated[bool, typer.Option("--all-profiles", help="Samples of several profiles together.")] = False,
    rarefy: Annotated[
        int, typer.Option(metavar="N", parser=positive, help="Also give the counts that N random samples would have.")
    ] = 1_000,
    images: Annotated[
        int,
        typer.Option(metavar="N", parser=_at_least_none, help="Compare the images of N random pairs; 0 reads none."),
    ] = 200,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write one page that needs no network.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Describe a dataset: its objects, what changes between the captions, repeats, scores and losses.

    The paper's figures stand beside it. Counts grow with the number of samples, so datasets compare by the counts
    that are rarefied to the same number.
    """
    with _progress() as progress:
        found = _gathered(context, place, (job, profile, all_profiles), (rarefy, images), progress)
    if html is not None:
        _write(html, found)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    from imgdiffd.cli.terminal import wide_console

    _show(found, wide_console())


def _gathered(
    context: typer.Context,
    place: Path | None,
    choice: tuple[int | None, str | None, bool],
    sizes: tuple[int, int],
    progress: Callable[[int], object],
) -> "Statistics":
    from imgdiffd.errors import InputError
    from imgdiffd.export.choice import choose_jobs
    from imgdiffd.statistics.gathering import gather
    from imgdiffd.statistics.sources import database_samples, is_release, release_samples
    from imgdiffd.store import Reader

    job, profile, all_profiles = choice
    drawn, images = sizes
    if place is not None and place.is_dir():
        if not is_release(place):
            hint = "give a database, or a folder such as `imgdiffd export` writes"
            raise InputError(f"{place}: there is no dataset in the published format", code="not_a_release", hint=hint)
        if job is not None or profile is not None:
            hint = "leave --job and --profile out, or give the database"
            raise InputError(f"{place}: a dataset does not say its jobs and profiles", code="not_a_database", hint=hint)
        samples = release_samples(place)
        return gather(samples, str(place), ordered=False, drawn=drawn, images=images, progress=progress)
    settings = settings_of(context)
    database = settings.database if place is None else place
    pictures = settings.images if place is None else place.parent / settings.images.name
    with Reader.open(database) as reader:
        from imgdiffd.daemon.views import funnel_view

        made = choose_jobs(reader.made(), job=job, profile=profile, all_profiles=all_profiles)
        whole_database = profile is None or len(made) == len(reader.made())
        funnel = funnel_view(reader.funnel(job)) if whole_database else None
        samples = database_samples(reader, pictures, [row.job for row in made])
        return gather(
            samples, str(database), ordered=True, funnel=funnel, drawn=drawn, images=images, progress=progress
        )


def _write(html: Path, found: "Statistics") -> None:
    from imgdiffd import durable
    from imgdiffd.errors import ExportError, reason_of
    from imgdiffd.statistics.page import page

    try:
        durable.write({html: page(found)})
    except OSError as error:
        hint = "name a file that you may write, in a folder that is there"
        raise ExportError(f"{html}: cannot be written: {reason_of(error)}", hint=hint) from error


@contextmanager
def _progress() -> Iterator[Callable[[int], object]]:
    """How many samples have been read, while a person waits."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} samples read"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda count: bar.update(task, completed=count)


def _show(found: "Statistics", console: "Console") -> None:
    from imgdiffd.cli.terminal import funnel_table, plain

    console.print(plain(found.source, "bold"))
    if not found.kinds:
        console.print("no samples yet; `imgdiffd funnel` says where the captions are")
    for kind in found.kinds:
        console.print()
        _show_kind(found, kind, console)
    if found.funnel is not None:
        console.print()
        console.print(funnel_table(found.funnel))


def _show_kind(found: "Statistics", kind: "KindStatistics", console: "Console") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    from imgdiffd.cli.terminal import plain
    from imgdiffd.statistics.wording import diversity_rows, notes, word_row

    right = [Column(header, justify="right") for header in ("", f"in {found.drawn:,} samples", "paper")]
    table = Table(Column(f"object {kind.kind}"), *right, box=SIMPLE_HEAD)
    for row in diversity_rows(kind, found.ordered):
        table.add_row(*map(plain, row))
    console.print(table)
    if kind.words:
        right = [Column(header, justify="right") for header in ("in both", "differ", "share", "in one", "in none")]
        table = Table("words", *right, box=SIMPLE_HEAD)
        for words in kind.words:
            table.add_row(*word_row(words))
        console.print(table)
    names = ", ".join(
        f"{each.name} {each.count:,}{'' if each.objects365 else '*'}" for each in kind.diversity.top_names
    )
    console.print(plain(f"most frequent (* not in Objects365): {names}"))
    if pairs := kind.diversity.top_pairs:
        told = ", ".join(f"{each.first} → {each.second} {each.count:,}" for each in pairs)
        console.print(plain(f"most frequent pairs: {told}"))
    for note in notes(found, kind):
        console.print(plain(f"! {note}", "yellow"))
    for histogram in kind.scores:
        console.print(plain(_line(histogram)))


def _line(histogram: "Histogram") -> str:
    """A histogram in one line: a height for each bar, between the least and the greatest score."""
    most = max(histogram.counts)
    bars = "".join(" ▁▂▃▄▅▆▇█"[-(-8 * each // most)] for each in histogram.counts)
    return f"{histogram.name}: {histogram.least:.3f} {bars} {histogram.most:.3f}, mean {histogram.mean:.3f}"
