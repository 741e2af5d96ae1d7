"""`imgdiffd simulate`: a planned run's hours, utilisation and charts."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from imgdiffd.cli.parameters import number, positive, whole

CAUGHT = 0.2  # a guess until `imgdiffd previews` tells; the miniature bundle's previews are about as good at 40 %


def _speed(text: str) -> float:
    return _share(text, "a share of the others' speed above 0 and at most 1", lambda value: 0 < value <= 1)


def _failures(text: str) -> float:
    return _share(text, "a share of the batches from 0 to below 0.5", lambda value: 0 <= value < 0.5)


def _caught(text: str) -> float:
    return _share(text, "a share of the pairs that fail, above 0 and at most 1", lambda value: 0 < value <= 1)


def _share(text: str, what: str, fits: Callable[[float], bool]) -> float:
    value = number(text, what)
    if not fits(value):
        raise ValueError(f"{text} is out of range; give {what}")
    return value


def simulate(
    captions: Annotated[
        int, typer.Option(metavar="N", parser=positive, help="Captions of the run; the default is the paper's number.")
    ] = 118_000,
    devices: Annotated[int, typer.Option(metavar="N", parser=positive, help="Number of cards.")] = 4,
    placement: Annotated[
        Literal["equal", "mixed"],
        typer.Option(help="equal: every card holds every model; mixed: only half of the cards caption."),
    ] = "equal",
    slow_card: Annotated[
        float, typer.Option(metavar="SHARE", parser=_speed, help="Speed of the last card, as a share of the others'.")
    ] = 1.0,
    failure_rate: Annotated[
        float, typer.Option(metavar="SHARE", parser=_failures, help="Share of batches that kill their worker.")
    ] = 0.0,
    costs: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE|FILE",
            help="What is expected of a shipped bundle on an A100 (default: paper), or a cost table (JSON).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", parser=whole, help="Draw other outcomes of the captions.")] = 1,
    abort: Annotated[
        bool, typer.Option("--abort", help="With early abort at 40 % of the steps, and the hours without it beside.")
    ] = False,
    caught: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            parser=_caught,
            help="With --abort: of the pairs that fail the similarity gate, those whose preview gives them up.",
        ),
    ] = CAUGHT,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the charts go.")] = Path("simulation"),
) -> None:
    """Estimate hours and utilisation of a run on any devices.

    It plans a run ahead, on virtual time, for devices that you may not have. It prints tables and leaves charts.
    """
    from imgdiffd.schedulers.simulation.command import Options
    from imgdiffd.schedulers.simulation.command import simulate as run

    run(
        Options(
            captions=captions,
            devices=devices,
            placement=placement,
            slow_card=slow_card,
            failure_rate=failure_rate,
            costs=costs,
            seed=seed,
            out=out,
            caught=caught if abort else 0.0,
        ),
        print,
    )
