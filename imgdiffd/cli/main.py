"""The `imgdiffd` command: every command under its heading, errors as one line and an exit status."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from imgdiffd import __version__
from imgdiffd.cli import (
    ablating,
    choosing,
    daemon,
    explain,
    export,
    importing,
    jobs,
    looking,
    mini,
    models,
    previews,
    rewriting,
    simulate,
    statistics,
    submitting,
    upkeep,
    watching,
)
from imgdiffd.cli.parameters import CONFIG, Config
from imgdiffd.cli.usage import PROGRAM, Command, SomeCommand, in_our_words, new_group, share_option
from imgdiffd.errors import ImgdiffdError, visible

COMPLETION = "_IMGDIFFD_COMPLETE"  # set by the shell that asks for completions
COMMANDS = {
    "Daemon": (daemon.serve, daemon.check, daemon.settings, daemon.profile),
    "Jobs": (
        submitting.submit, submitting.problems, watching.status, watching.watch, watching.jobs, watching.funnel,
        explain.explain, previews.previews, jobs.pause, jobs.resume, jobs.cancel, jobs.retry,
    ),
    "Choosing": (choosing.refilter, choosing.thresholds, ablating.ablate),
    "Keeping": (upkeep.backup, upkeep.restore, upkeep.delete, upkeep.prune),
    "Dataset": (looking.samples, looking.items, export.export, importing.import_, statistics.statistics),
    "Trying and planning": (mini.demo, rewriting.rewrite, simulate.simulate, mini.mini),
    "Models": (models.models,),
}  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _program(
    config: Config = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Caption files in, an image-difference dataset out (Img-Diff, arXiv 2408.04594)."""


def build() -> SomeCommand:
    """The whole command line; options of the program work before and after the command."""
    app = new_group(callback=_program, no_args_is_help=True)
    for heading, commands in COMMANDS.items():
        for command in commands:
            if isinstance(command, typer.Typer):
                app.add_typer(command, rich_help_panel=heading)
            else:
                name = command.__name__.rstrip("_")  # a name that Python keeps to itself ends in _
                app.command(name, cls=Command, rich_help_panel=heading)(command)
    root = get_command(app)
    share_option(root, CONFIG)
    return root


def _run(argv: Sequence[str]) -> int:
    root = build()
    try:
        with root.make_context(PROGRAM, list(argv)) as context:
            root.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except typer.TyperException as error:
        print(in_our_words(error), file=sys.stderr)
        return error.exit_code
    except ImgdiffdError as error:
        print(visible(f"{PROGRAM}: {error}"), file=sys.stderr)
        return error.exit_status
    except UnicodeEncodeError as error:
        print(f"{PROGRAM}: {error.object!r} is not UTF-8; give a name or a text that is", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise  # whoever reads the output has seen enough: `main` ends quietly
    except OSError as error:
        print(f"{PROGRAM}: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", file=sys.stderr)
        return 1
    return 0


def _complete(root: SomeCommand) -> int:
    """Answer the shell that asks for completions; what it asks with is in its environment variables."""
    try:
        root.main(prog_name=PROGRAM)
    except (KeyError, ValueError) as error:  # as where COMP_WORDS is not set
        lacking = f"${error.args[0]} is not set" if isinstance(error, KeyError) else str(error)
        print(f"{PROGRAM}: ${COMPLETION} is for the shell's completion, but {lacking}", file=sys.stderr)
        return 2
    return 0


def _open_standard_streams() -> None:
    """Open on /dev/null what was closed before the start: files and pipes of ours must not take the place of these."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
            os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, mode))


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exits 0, 1 for failures, 2 for wrong arguments, 78 for wrong configuration, 130 after Ctrl-C."""
    _open_standard_streams()
    try:
        status = _complete(build()) if COMPLETION in os.environ else _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush does not raise again
        status = 141
    if status:
        sys.exit(status)
