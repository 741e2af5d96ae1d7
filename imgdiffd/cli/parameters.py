"""The arguments and options that several commands share: how they are read, checked and completed."""

import math
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imgdiffd.api.client import Client
    from imgdiffd.settings import Settings

CONFIG = "config"
_CONNECT_S = 10.0  # the backlog of a daemon that hangs is full at some time


def whole(text: object) -> int:
    """A whole number, typed or a default. Raises ValueError, also for what Python would take: `1_0`, Arabic digits."""
    text = str(text)
    if not re.fullmatch("[+-]?[0-9]{1,100}", text):
        raise ValueError(f"{_short(text)} is not a whole number; give one such as 7")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 on. Raises ValueError."""
    number = whole(text)
    if not 1 <= number < 2**63:
        raise ValueError(
            f"{number} is too {'small' if number < 1 else 'large'}; give one from 1 to 9223372036854775807"
        )
    return number


def some(text: str) -> str:
    """A text that says something. Raises ValueError."""
    if not text.strip():
        raise ValueError("it is empty; leave the option out, or give it a value")
    return text


def priority(text: object) -> int:
    """A job's priority, typed or the default. Raises ValueError."""
    if not -100 <= (found := whole(text)) <= 100:
        raise ValueError(f"{found} is out of range; give one from -100 to 100")
    return found


def number(text: object, what: str) -> float:
    """A finite number, typed or a default; `what` says which kind is wanted. Raises ValueError."""
    text = str(text)
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) or not math.isfinite(float(text)):
        raise ValueError(f"{_short(text)} is not a number; give {what}")
    return float(text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")


def profile_names() -> list[str]:
    """The profiles that come with imgdiffd, for shell completion."""
    from imgdiffd.method.profile_files import BUILT_IN

    return list(BUILT_IN)


def bundle_names() -> list[str]:
    """The bundles that come with imgdiffd, for shell completion."""
    from imgdiffd.bundles.bundle import BUILT_IN

    return list(BUILT_IN)


def _remember(context: typer.Context, value: Path | None) -> Path | None:
    if value is not None:  # before and after the command: the later one counts
        if value.is_dir():  # as the empty name is too
            raise typer.BadParameter("the name of a file is needed, not of a folder or nothing")
        context.meta[CONFIG] = value
    return value


def settings_of(context: typer.Context) -> "Settings":
    """The settings that the command line asks for. Raises SettingsError."""
    from imgdiffd.settings import load_settings

    return load_settings(context.meta.get(CONFIG))


def client_of(context: typer.Context) -> "Client":
    """A connection to the daemon that the settings name. Raises SettingsError."""
    from imgdiffd.api.client import Client

    return Client(settings_of(context).socket_path)


def listens(path: Path) -> bool:
    """Whether there is a daemon, also one that may not be asked."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def settings_file_of(context: typer.Context) -> Path | None:
    """The file that `settings_of` reads; None where there is none."""
    from imgdiffd.settings import find_file

    return find_file(context.meta.get(CONFIG), os.environ)


Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        callback=_remember,
        expose_value=False,
        help="Settings file (TOML). Where none is given: $IMGDIFFD_CONFIG, else the first of ./imgdiffd.toml, "
        "~/.config/imgdiffd/imgdiffd.toml and /etc/imgdiffd/imgdiffd.toml that exists.",
    ),
]
Job = Annotated[int, typer.Argument(metavar="JOB", parser=positive, help="The job's number.")]
Jobs = Annotated[list[int] | None, typer.Argument(metavar="JOB", parser=positive, help="Numbers of jobs.")]
AllJobs = Annotated[bool, typer.Option("--all", help="Every job for which this can be done now.")]
OnlyJob = Annotated[int | None, typer.Argument(metavar="JOB", parser=positive, help="Only this job.")]
BundleName = Annotated[
    str | None,
    typer.Argument(
        metavar="BUNDLE",
        autocompletion=bundle_names,
        help="A bundle's name, folder or .toml file; that of the settings where none is given. "
        "A folder called like a command is given as a path: ./pull.",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", parser=whole, help="Draw other captions.")]
