"""The commands about the daemon itself: run it, and look at what it would run with."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from imgdiffd.cli.parameters import profile_names, settings_file_of, settings_of
from imgdiffd.errors import EXIT_CONFIGURATION, ConfigurationError, visible

if TYPE_CHECKING:
    from imgdiffd.daemon.ground import Finding


def serve(context: typer.Context) -> None:
    """Run the daemon in the foreground.

    Ctrl-C stops it in order: running batches may finish first. A second Ctrl-C stops it at once. SIGHUP makes it read
    its settings again.
    """
    settings, file = settings_of(context), settings_file_of(context)  # first: wrong ones are reported within a second
    from imgdiffd.daemon.logs import log_to_stderr

    log_to_stderr(settings)
    _refuse_limited_address_space()
    import anyio

    from imgdiffd.daemon.serve import serve as run

    anyio.run(
        lambda: run(settings, file=file, reread=lambda: settings_of(context)), backend_options={"use_uvloop": True}
    )


def _refuse_limited_address_space() -> None:
    from imgdiffd.fleet.memory import refuse_limited_address_space

    refuse_limited_address_space()  # before anything big is loaded, which would fail in a way of its own


def check(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check everything that `serve` needs, without starting anything.

    That is settings, models, profile, devices, folders, room, compiler, database and socket. It exits with 78 where
    `serve` would refuse, with the same words.
    """
    try:  # first: what is wrong with the settings is reported within a second
        settings, file = settings_of(context), settings_file_of(context)
        _refuse_limited_address_space()
    except ConfigurationError as error:
        if as_json:
            _print_json([("settings", "refused", error.message, error.hint or "")])
            raise typer.Exit(EXIT_CONFIGURATION) from error
        raise
    import anyio

    from imgdiffd.daemon.checks import findings
    from imgdiffd.daemon.ground import Ground

    found = anyio.run(findings, Ground(settings, file))
    if as_json:
        _print_json([(each.check, each.state, each.text, each.hint) for each in found])
    else:
        _print_findings(found)
    if any(each.state == "refused" for each in found):
        raise typer.Exit(EXIT_CONFIGURATION)


def _print_json(rows: list[tuple[str, str, str, str]]) -> None:
    checks = [dict(zip(("check", "state", "text", "hint"), row, strict=True)) for row in rows]
    ready = all(row["state"] != "refused" for row in checks)
    print(json.dumps({"ready": ready, "checks": checks}, indent=2, ensure_ascii=False))


def _print_findings(found: "list[Finding]") -> None:
    from rich.table import Table
    from rich.text import Text

    from imgdiffd.cli.terminal import Screen

    console = Screen()
    colours = {"ok": "green", "warning": "yellow", "refused": "red"}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for each in found:
        text = visible(f"{each.text} ({each.hint})" if each.hint else each.text)
        if console.is_terminal:
            table.add_row(each.check, Text(each.state, colours.get(each.state, "dim")), Text(text))
        else:
            print(f"{each.check:<14}{each.state:<13}{text}")
    if console.is_terminal:
        console.print(table)


def settings(context: typer.Context) -> None:
    """List every setting with its value and meaning, and the file that they were read from."""
    from imgdiffd.settings import documented

    current, file = settings_of(context), settings_file_of(context)
    print(f"# read from {file}" if file else "# no settings file: the environment and defaults")
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
