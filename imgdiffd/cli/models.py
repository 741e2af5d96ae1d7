"""`imgdiffd models`: a bundle's models on this machine: listed, fetched, placed.

It owns the words after `models`, of which the first decides; it does not know how anything is done.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgdiffd.errors import BundleError, ConfigurationError
from imgdiffd.settings import Settings, load_settings

if TYPE_CHECKING:
    from imgdiffd.bundles.bundle import Bundle
    from imgdiffd.fleet.footprints import Measurements
    from imgdiffd.fleet.planner import Planner

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

LIST, PLAN = "list", "plan"
_OPTION_WITH_VALUE = "--config"


def add_models(commands: "_Commands") -> None:
    """Add `models` with its words to the command line; `spelled_out` puts in the word that may be left out."""
    summary = "what a bundle's models are, their licences, and whether they are here; fetch them"
    models = commands.add_parser("models", help=summary, description=summary)
    words = models.add_subparsers(dest="word", required=True, metavar="WORD")
    for word, (run, meaning) in _WORDS.items():
        added = words.add_parser(word, help=meaning, description=meaning)
        added.set_defaults(run=run)
        help_text = "a bundle's name or file (default: the settings'); one called like a word: ./pull"
        added.add_argument("bundle", nargs="?", help=help_text)
        if word == PLAN:
            cards_help = "plan for empty cards of these sizes (10⁹ bytes) instead of this machine's devices"
            added.add_argument("--cards", nargs="+", type=_gigabytes, metavar="GB", help=cards_help)


def spelled_out(words: Sequence[str]) -> list[str]:
    """The command line with `models` followed by one of its words: `models paper` becomes `models list paper`."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if len(words[at]) > 2 and _OPTION_WITH_VALUE.startswith(words[at]) else 1
    if at == len(words) or words[at] != "models":
        return list(words)
    after = words[at + 1 : at + 2]
    if after and after[0] in {*_WORDS, "-h", "--help"}:
        return list(words)
    return [*words[: at + 1], LIST, *words[at + 1 :]]


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no card's size in GB")
    return value


def _bundle(arguments: argparse.Namespace) -> "Bundle":
    from imgdiffd.bundles.bundle import load_bundle

    config: Path | None = arguments.config
    return load_bundle(arguments.bundle or load_settings(config).bundle)


def _list(arguments: argparse.Namespace) -> None:
    from imgdiffd.cli.terminal import models_table, wide_console
    from imgdiffd.hub import presences

    bundle = _bundle(arguments)
    console = wide_console()
    console.print(models_table((each.role, each.model, not each.problems) for each in presences(bundle)))
    console.print(_fit(bundle, load_settings(arguments.config)), markup=False, soft_wrap=True)
    _refuse_lacking(bundle)


def _fit(bundle: "Bundle", settings: Settings) -> str:
    """Whether the bundle fits this machine when nothing else is on it, as a sentence."""
    from imgdiffd.schedulers.placement import PlacementError

    try:
        _planner(bundle, settings).plan_empty()
    except PlacementError as error:
        return f"It does not fit this machine: {error.message}."
    except ConfigurationError as error:
        return f"Whether it fits this machine is not known: {error}."
    return "It fits this machine; `imgdiffd models plan` shows how."


def _pull(arguments: argparse.Namespace) -> None:
    from imgdiffd.hub.pulling import pull

    bundle = _bundle(arguments)
    try:
        pull(bundle, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    _refuse_lacking(bundle)
    print(f"bundle {bundle.name} is whole on this machine")


def _plan(arguments: argparse.Namespace) -> None:
    from imgdiffd.api.client import Client
    from imgdiffd.cli.terminal import plan_table, wide_console
    from imgdiffd.fleet.memory import imagined
    from imgdiffd.fleet.planner import Planner

    settings = load_settings(arguments.config)
    bundle = _bundle(arguments)
    if arguments.cards:
        cards = imagined(arguments.cards)
        planner = Planner(
            bundle, {c.device: c.device for c in cards}, _measured(settings), lambda _: cards, removal=settings.removal
        )
    else:
        planner = _planner(bundle, settings)
    with Client(settings.socket_path) as client:
        busy = not arguments.cards and client.alive()
    plan = planner.plan_empty() if busy else planner.plan_now()
    wide_console().print(plan_table(plan, planner.footprints()))
    if busy:
        print("a daemon is running, so its memory counts as free here")


def _measured(settings: Settings) -> "Measurements":
    from imgdiffd.fleet.footprints import Measurements

    return Measurements.of_folder(settings.state_folder)


def _planner(bundle: "Bundle", settings: Settings) -> "Planner":
    from imgdiffd.fleet.planner import Planner
    from imgdiffd.fleet.supervisor import names_of, resolve_devices

    return Planner(bundle, names_of(resolve_devices(settings.devices)), _measured(settings), removal=settings.removal)


def _refuse_lacking(bundle: "Bundle") -> None:
    """Print what `bundle` lacks on this machine; raises BundleError where that is anything."""
    from imgdiffd.hub import problems

    lacking = problems(bundle)
    for line in lacking:
        print(line)
    if lacking:
        raise BundleError(f"bundle {bundle.name} is not whole on this machine", hint="mend what is listed above")


_WORDS = {
    LIST: (_list, "what a bundle needs and what of it is here; the word may be left out"),
    PLAN: (_plan, "which device would hold which models, what that takes, and why"),
    "pull": (_pull, "fetch what a bundle names by hub id; interrupted, it goes on where it stopped"),
}
