"""`imgdiffd models`: a bundle's models on this machine, listed or fetched.

It owns the words after `models`, of which the first decides; it does not know how anything is done.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgdiffd.bundle import Bundle, load_bundle
from imgdiffd.errors import BundleError
from imgdiffd.settings import load_settings

if TYPE_CHECKING:  # its type is for type checkers alone
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

LIST = "list"
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


def _bundle(arguments: argparse.Namespace) -> Bundle:
    config: Path | None = arguments.config
    return load_bundle(arguments.bundle or load_settings(config).bundle)


def _list(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from imgdiffd.hub import presences
    from imgdiffd.terminal import models_table

    bundle = _bundle(arguments)
    Console().print(models_table((each.role, each.model, not each.problems) for each in presences(bundle)))
    _refuse_lacking(bundle)


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


def _refuse_lacking(bundle: Bundle) -> None:
    """Print what `bundle` lacks on this machine; raises BundleError where that is anything."""
    from imgdiffd.hub import problems

    lacking = problems(bundle)
    for line in lacking:
        print(line)
    if lacking:
        raise BundleError(f"bundle {bundle.name} is not whole on this machine", hint="mend what is listed above")


_WORDS = {
    LIST: (_list, "what a bundle needs and what of it is here; the word may be left out"),
    "pull": (_pull, "fetch what a bundle names by hub id; interrupted, it goes on where it stopped"),
}
