"""`imgdiffd models`: a bundle's models on this machine: listed, fetched, placed."""

import sys
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgdiffd.cli.parameters import BundleName, bundle_names, number, settings_of
from imgdiffd.cli.usage import Command, CompletionItem, Context, Group, SomeCommand, new_group
from imgdiffd.errors import BundleError, ConfigurationError

if TYPE_CHECKING:
    from imgdiffd.bundles.bundle import Bundle
    from imgdiffd.fleet.planner import Planner
    from imgdiffd.settings import Settings

CARDS = "--cards"
LIST = "list"


class _Models(Group):
    """The word `list` may be left out: a word that is not a command is a bundle."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, SomeCommand | None, list[str]]:
        """The command that the first word names, else `list` with it. Raises UsageError for a slip of a command."""
        word = args[0]
        is_bundle = word in bundle_names() or "/" in word or Path(word).exists()
        if word not in self.commands and (is_bundle or not self.nearest(word)):
            args = [LIST, *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        """The commands, and what may stand after `list`."""
        (bundle, *_) = self.commands[LIST].params
        return [*super().shell_complete(ctx, incomplete), *bundle.shell_complete(ctx, incomplete)]


class _SeveralCards(Command):
    """`--cards 80 80` means `--cards 80 --cards 80`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the arguments, with an option for each of the sizes that follow the first."""
        if CARDS in args:
            second = args.index(CARDS) + 2
            more = list(takewhile(lambda word: not word.startswith("-"), args[second:]))
            spread = [word for size in more for word in (CARDS, size)]
            args = [*args[:second], *spread, *args[second + len(more) :]]
        return super().parse_args(ctx, args)


def _gigabytes(text: str) -> float:
    value = number(text, "a card's size in GB, such as 80")
    if not 0 < value < 1e6:
        raise ValueError(f"{text} is not a card size in GB; give a number such as 80")
    return value


models = new_group(
    _Models, name="models", invoke_without_command=True, help="List, fetch and place the models of a bundle."
)


@models.callback()
def _alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models(context)


@models.command(LIST, cls=Command)
def list_models(context: typer.Context, bundle: BundleName = None) -> None:
    """Show which models a bundle needs and which are here.

    It lists their licences and sizes too, and says whether they fit this machine. The word `list` may be left out.
    """
    from imgdiffd.cli.terminal import models_table, wide_console
    from imgdiffd.hub import presences

    chosen = _bundle(context, bundle)
    console = wide_console()
    console.print(models_table((each.role, each.model, not each.problems) for each in presences(chosen)))
    console.print(_fit(chosen, settings_of(context)), markup=False, soft_wrap=True)
    _refuse_lacking(chosen)


@models.command(cls=_SeveralCards)
def plan(
    context: typer.Context,
    bundle: BundleName = None,
    cards: Annotated[
        list[float] | None,
        typer.Option(
            CARDS,
            metavar="GB...",
            parser=_gigabytes,
            help="Plan for empty cards of these sizes (10⁹ bytes) instead of this machine's devices.",
        ),
    ] = None,
) -> None:
    """Show which device would hold which models, and why."""
    from imgdiffd.api.client import Client
    from imgdiffd.cli.terminal import plan_table, wide_console

    settings = settings_of(context)
    planner = _planner(_bundle(context, bundle), settings, cards)
    with Client(settings.socket_path) as client:
        busy = not cards and client.alive()
    found = planner.plan_empty() if busy else planner.plan_now()
    wide_console().print(plan_table(found, planner.footprints()))
    if busy:
        print("a daemon is running, so its memory counts as free here")


@models.command(cls=Command)
def pull(context: typer.Context, bundle: BundleName = None) -> None:
    """Fetch the models that a bundle names by hub id.

    Interrupted, the same command continues where it stopped.
    """
    from imgdiffd.hub.pulling import pull as run

    chosen = _bundle(context, bundle)
    try:
        run(chosen, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    _refuse_lacking(chosen)
    print(f"bundle {chosen.name} is whole on this machine")


@models.command(cls=Command)
def fit_preview(context: typer.Context, bundle: BundleName = None) -> None:
    """Fit the cheap preview by which half-painted pairs are given up.

    It paints 16 images on the first GPU, or on the CPU, and prints the table that goes into the bundle's file.
    """
    import torch

    from imgdiffd.method.profile import load_profile
    from imgdiffd.models.fit_preview import CAPTIONS, fit_preview
    from imgdiffd.models.loading import load_models
    from imgdiffd.pipeline import Role

    chosen = _bundle(context, bundle)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    held = load_models(chosen, [Role.PAINTER], device, lambda line: print(line, file=sys.stderr), compile=False)
    found, explained = fit_preview(held.need_painter, CAPTIONS, load_profile(chosen.profile).generate)
    print(found.as_toml(), end="")
    print(f"it explains {explained:.1%} of the colours' variance; its place is {chosen.path}", file=sys.stderr)


def _bundle(context: typer.Context, name: str | None) -> "Bundle":
    from imgdiffd.bundles.bundle import load_bundle

    return load_bundle(name or settings_of(context).bundle)


def _fit(bundle: "Bundle", settings: "Settings") -> str:
    """Whether the bundle fits this machine when nothing else is on it, as a sentence."""
    from imgdiffd.schedulers.placement import PlacementError

    try:
        _planner(bundle, settings).plan_empty()
    except PlacementError as error:
        return f"It does not fit this machine: {error.message}."
    except ConfigurationError as error:
        return f"Whether it fits this machine is not known: {error}."
    return "It fits this machine; `imgdiffd models plan` shows how."


def _planner(bundle: "Bundle", settings: "Settings", cards: list[float] | None = None) -> "Planner":
    """The planner for empty cards of these sizes in GB, or for this machine's devices."""
    from imgdiffd.fleet.cards import resolve_devices
    from imgdiffd.fleet.footprints import Measurements
    from imgdiffd.fleet.memory import imagined
    from imgdiffd.fleet.planner import Planner

    measured = Measurements.of_folder(settings.state_folder)
    if cards:
        empty = imagined(cards)
        names = {card.device: card.device for card in empty}
        return Planner(bundle, names, measured, lambda _: empty, removal=settings.removal)
    return Planner(bundle, resolve_devices(settings.devices).places, measured, removal=settings.removal)


def _refuse_lacking(bundle: "Bundle") -> None:
    """Print what `bundle` lacks on this machine; raises BundleError where that is anything."""
    from imgdiffd.hub import problems

    lacking = problems(bundle)
    for line in lacking:
        print(line)
    if lacking:
        raise BundleError(f"bundle {bundle.name} is not whole on this machine", hint="fix the problems above")
