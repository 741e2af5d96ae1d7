"""The commands that run the miniature bundle: the demo, and its measurement and calibration."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from imgdiffd.cli.parameters import Seed, positive
from imgdiffd.cli.usage import Command, new_group

mini = new_group(name="mini", help="Measure the miniature bundle, or derive its profile.", no_args_is_help=True)
HeldOut = Annotated[int, typer.Option(metavar="N", parser=positive, help="Held-out captions to draw.")]


def demo(
    folder: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes.")] = Path("demo"),
    captions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own caption file instead of the built-in one."),
    ] = None,
    removal: Annotated[
        bool, typer.Option("--removal", help="Do object removal too, which takes half as long again.")
    ] = False,
) -> None:
    """Run the whole pipeline on the miniature bundle.

    It leaves a dataset in a folder, with the daemon's database, settings and log. A second run continues where the
    first one was.
    """
    from imgdiffd.cli.demo import run_demo
    from imgdiffd.cli.terminal import Screen

    run_demo(folder, captions, Screen(), removal=removal)


@mini.command(cls=Command)
def evaluate(
    captions: HeldOut = 200,
    seed: Seed = 1,
    only: Annotated[
        Literal["early-abort"] | None,
        typer.Option(help="Only what early abort saves and loses: pairs are painted and compared, no more."),
    ] = None,
) -> None:
    """Measure every promise of the miniature bundle.

    The exit status is 1 where one is broken.
    """
    from imgdiffd.mini.evaluate import evaluate as run

    if not run(captions, seed, only):
        raise typer.Exit(1)


@mini.command(cls=Command)
def calibrate(captions: HeldOut = 160, seed: Seed = 1) -> None:
    """Derive the thresholds of the profile `mini`."""
    from imgdiffd.mini.calibrate import calibrate as run

    run(captions, seed)
