"""`imgdiffd refilter` and `thresholds`: what other thresholds would yield from the scores that are stored."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imgdiffd.cli.parameters import positive, profile_names, settings_of, some
from imgdiffd.cli.usage import PROGRAM, UsageError
from imgdiffd.errors import counted, visible

if TYPE_CHECKING:
    from imgdiffd.choosing.columns import Columns
    from imgdiffd.choosing.loading import Loader
    from imgdiffd.choosing.plan import Prospect
    from imgdiffd.method.profile import Profile
    from imgdiffd.settings import Settings
    from imgdiffd.store import Reader


def refilter(
    context: typer.Context,
    profile: Annotated[
        str,
        typer.Option(
            metavar="PROFILE", parser=some, autocompletion=profile_names, help="A profile's name or .toml file."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would yield, and what it would still need.")
    ] = False,
    job: Annotated[int | None, typer.Option(metavar="JOB", parser=positive, help="Only captions of this job.")] = None,
    paint: Annotated[bool, typer.Option("--paint", help="Also where pairs must be painted, which takes long.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Apply another profile to what is stored.

    Captions that have ended become a new job under the profile, which takes over every result that still stands; only
    what is missing is worked on. Where pairs would have to be painted it is refused, with their number and what that
    takes, unless --paint is given.

    With --dry-run nothing changes, and the profile's funnel stands beside today's, with what each filter wins and
    loses. No device is needed for it: every score is stored, of rejects too. What is not stored is named, with what it
    takes to make it.
    """
    from imgdiffd.method.profile import load_profile

    if not dry_run:
        from imgdiffd.cli.refiltering import bring_under

        bring_under(context, profile, job, paint=paint, as_json=as_json)
        return
    if paint:
        raise UsageError("give either --dry-run, which changes nothing, or --paint", context)
    wanted = load_profile(profile)
    with loaded(context) as (reader, loader, columns):
        found = plan_of(reader, loader, columns, settings_of(context), wanted, job)
    if as_json:
        print(json.dumps(asdict(found), indent=2, ensure_ascii=False))
        return
    from imgdiffd.cli.choosing_tables import plan_parts
    from imgdiffd.cli.terminal import wide_console

    console = wide_console()
    for part in plan_parts(found):
        console.print(part)


def thresholds(
    context: typer.Context,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            parser=some,
            autocompletion=profile_names,
            help="A profile's name or .toml file; the daemon's own where none is given.",
        ),
    ] = None,
    score: Annotated[
        Literal["pair", "natural", "crops", "nouns", "texts", "descriptions"] | None,
        typer.Option("--score", help="Only this score; all where none is given."),
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Also draw them into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show how each score is spread, and what each bound on it would yield.

    For each threshold of a profile: a histogram of its score, how many would pass at each bound, how many samples there
    would be if only this bound moved, and where the bounds of the profiles that come with imgdiffd lie. Each caption
    that has ended counts once, however many profiles it has ended under.
    """
    import numpy as np

    from imgdiffd.bundles.bundle import load_bundle
    from imgdiffd.choosing.bounds import SCORES, score_bounds
    from imgdiffd.choosing.outlook import outlook
    from imgdiffd.choosing.plan import chosen_captions
    from imgdiffd.method.profile import load_profile
    from imgdiffd.method.profile_files import BUILT_IN

    settings = settings_of(context)
    wanted = load_profile(profile or settings.profile or load_bundle(settings.bundle).profile)
    marked = {**{name: load_profile(name) for name in BUILT_IN}, wanted.name: wanted}
    with loaded(context) as (_, loader, stored):
        columns = stored.take(np.flatnonzero(chosen_captions(stored, outlook(stored, wanted, loader.profile))))
        names = [score] if score else list(SCORES)
        found = [each for name in names for each in score_bounds(columns, name, wanted, loader.profile, marked)]
        title = f"Scores of {counted(len(columns), 'caption')}, profile {wanted.name}"
    if svg is not None:
        from imgdiffd import durable
        from imgdiffd.choosing.drawing import draw

        durable.write({svg: draw(visible(title), found)})
    if as_json:
        print(json.dumps({"profile": wanted.name, "bounds": [asdict(each) for each in found]}, indent=2))
        return
    from imgdiffd.cli.choosing_tables import bounds_parts
    from imgdiffd.cli.terminal import wide_console

    console = wide_console()
    for part in bounds_parts(title, found):
        console.print(part)


def plan_of(
    reader: "Reader", loader: "Loader", columns: "Columns", settings: "Settings", profile: "Profile", job: int | None
) -> "Prospect":
    """What `profile` would yield, with the images that are there now and the costs measured so far."""
    from imgdiffd.bundles.bundle import load_bundle
    from imgdiffd.choosing.plan import plan
    from imgdiffd.daemon.refiltering import bundle_row
    from imgdiffd.daemon.views import seconds_per_item
    from imgdiffd.errors import unknown_job
    from imgdiffd.images.sweep import missing
    from imgdiffd.schedulers.cost_table import first_guess_s

    if job is not None and reader.job(job) is None:
        raise unknown_job(job)
    models = bundle_row(load_bundle(settings.bundle))
    agreeing = [job for job, bundles in reader.bundles().items() if all(models.agrees(each) for each in bundles)]
    costs = {**first_guess_s(settings.bundle), **seconds_per_item(reader.timings())}
    return plan(
        columns,
        profile,
        loader.profile,
        job=job,
        jobs=agreeing,
        images=reader.pair_images,
        missing=partial(missing, settings.images),
        seconds_per_item=costs,
    )


@contextmanager
def loaded(context: typer.Context) -> "Iterator[tuple[Reader, Loader, Columns]]":
    """The database, opened for reading alone, with its columns."""
    from imgdiffd.choosing.loading import Loader
    from imgdiffd.store import Reader

    settings = settings_of(context)
    with Reader.open(settings.database) as reader:
        loader = Loader(reader, settings.state_folder)
        with _progress(len(reader.caption_span())) as progress:
            columns = loader.load(progress)
        if loader.not_kept:
            print(f"{PROGRAM}: the scores will be read anew next time: {loader.not_kept}", file=sys.stderr)
        yield reader, loader, columns


@contextmanager
def _progress(expected: int) -> Iterator[Callable[[int], object]]:
    """A bar while a person waits."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("reading scores"), *Progress.get_default_columns()[1:])
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=expected)
        yield lambda count: bar.update(task, completed=count)
