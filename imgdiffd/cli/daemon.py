"""The commands about the daemon itself: run it, and look at what it would run with."""

import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from imgdiffd.cli.parameters import profile_names, settings_of

if TYPE_CHECKING:
    from imgdiffd.settings import Settings


def serve(context: typer.Context) -> None:
    """Run the daemon in the foreground.

    Ctrl-C stops it in order: running batches may finish first. A second Ctrl-C stops it at once. SIGHUP makes it read
    its settings again.
    """
    settings = settings_of(context)  # first: wrong ones are reported before anything big is loaded
    _log_to_stderr(settings)
    import anyio

    from imgdiffd.daemon.serve import serve as run

    anyio.run(lambda: run(settings, reread=lambda: settings_of(context)), backend_options={"use_uvloop": True})


def _log_to_stderr(settings: "Settings") -> None:
    from imgdiffd.daemon.notify import JournalFormatter, in_journal

    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if in_journal(sys.stderr):
        logging.getLogger().handlers[0].setFormatter(JournalFormatter())
    logging.getLogger("httpx").setLevel(logging.WARNING)


def check(context: typer.Context) -> None:
    """Check settings, bundle and profile without starting anything."""
    settings = settings_of(context)  # first: what is wrong with them is reported within a second

    from imgdiffd.bundles.bundle import load_bundle
    from imgdiffd.bundles.compatibility import check_agreement
    from imgdiffd.errors import BundleError
    from imgdiffd.hub import problems
    from imgdiffd.method.profile import load_profile

    bundle = load_bundle(settings.bundle)
    found = problems(bundle)
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        raise BundleError(f"bundle {bundle.name} cannot be used", hint="fix the problems above")
    chosen = load_profile(settings.profile or bundle.profile)
    check_agreement(chosen, bundle)
    print(f"settings, bundle {bundle.name} and profile {chosen.name} are in order")


def settings(context: typer.Context) -> None:
    """List every setting with its value and meaning."""
    from imgdiffd.settings import documented

    current = settings_of(context)
    for key, variable, default, meaning in documented():
        print(f"{key} = {getattr(current, key)!s}\n    {meaning}; default {default}; ${variable}")


def profile(
    name: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=profile_names, help="A profile's name or .toml file.")
    ] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print a profile as TOML: every prompt, threshold and number, with its meaning.

    The output is a profile file; copy from it what a profile of your own is to change.
    """
    from imgdiffd.method.profile import load_profile
    from imgdiffd.method.profile_toml import as_toml

    found = load_profile(name)
    print(found.model_dump_json(indent=2) if as_json else as_toml(found), end="\n" if as_json else "")
