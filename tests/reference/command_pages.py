"""The man page and the reference pages of commands and settings, written by `make reference` from the help texts."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgdiffd import __version__
from imgdiffd.cli.main import build
from imgdiffd.cli.usage import PROGRAM, Context, Group, SomeCommand, commands_below, help_rows

FOLDER = Path("docs/reference")
_COMMAND = "make reference"
_NOTE = f"<!-- Written by `{_COMMAND}`; change the help texts instead. -->\n"
_EVERYWHERE = ("--config", "-h, --help")  # listed once, not for every command
_KINDS = {"path": "path", "boolean": "`true` or `false`", "array": "list of names", "string": "text"}
Rows = list[tuple[str, str]]
EXIT_STATUSES: Rows = [
    ("0", "Done."),
    ("1", "It failed; the reason is on stderr."),
    ("2", "The command line is wrong."),
    ("78", "Settings, bundle or profile are wrong; starting again will not help."),
    ("130", "Stopped by Ctrl-C."),
    ("141", "Whoever read the output stopped reading."),
]
ENVIRONMENT: Rows = [
    ("IMGDIFFD_CONFIG", "The settings file where --config is not given."),
    ("IMGDIFFD_…", "Any setting by its name in capitals, such as IMGDIFFD_POLL_S; it wins over the file."),
    ("HF_HOME", "Where `imgdiffd models pull` puts models and the daemon looks for them."),
]


@dataclass(frozen=True)
class Entry:
    """One command as its help describes it."""

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    arguments: Rows
    options: Rows


def entries() -> tuple[Entry, dict[str, list[Entry]]]:
    """The program, and its commands by heading; a group comes before its commands."""
    root = build()
    assert isinstance(root, Group)
    context = Context(root, info_name=PROGRAM, **root.context_settings)
    sections: dict[str, list[Entry]] = {}
    for heading, commands in root.by_heading().items():
        for name, command in commands:
            below = [((name,), command), *commands_below(command, (name,))]
            sections.setdefault(heading, []).extend(_entry(each, path, context) for path, each in below)
    return _entry(root, (), context, everything=True), sections


def _entry(command: SomeCommand, path: tuple[str, ...], parent: Context, *, everything: bool = False) -> Entry:
    context = Context(command, parent=parent)
    name = " ".join((PROGRAM, *path))
    options = [row for row in help_rows(command, context, "option") if everything or not row[0].startswith(_EVERYWHERE)]
    return Entry(
        name,
        f"{name} {' '.join(command.collect_usage_pieces(context))}",
        tuple(" ".join(part.split()) for part in (command.help or "").split("\n\n")),
        help_rows(command, context, "argument"),
        [(option, " ".join(meaning.split())) for option, meaning in options],
    )


def _table(first: str, rows: Rows) -> Iterator[str]:
    if rows:
        yield f"| {first} | Meaning |\n|---|---|"
        yield from (f"| `{name.replace('|', chr(92) + '|')}` | {meaning} |" for name, meaning in rows)
        yield ""


def command_page() -> str:
    """Every command in Markdown."""
    program, sections = entries()
    lines = [_NOTE, "# Commands", "", f"```text\n{program.usage}\n```", "", *program.paragraphs, ""]
    lines += ["`--config` and `--help` work before and after the command. A mistyped command is answered with the"]
    lines += ["nearest one. `imgdiffd --install-completion` teaches bash, zsh or fish to complete commands, options,"]
    lines += [
        "profiles and bundles. The same text is a man page: `man imgdiffd`.",
        "",
        *_table("Option", program.options),
    ]
    for heading, found in sections.items():
        lines += [f"## {heading}", ""]
        for entry in found:
            lines += [f"### {entry.name}", "", f"```text\n{entry.usage}\n```", ""]
            lines += [line for paragraph in entry.paragraphs for line in (paragraph, "")]
            lines += [*_table("Argument", entry.arguments), *_table("Option", entry.options)]
    lines += ["## Exit status", "", *_table("Status", EXIT_STATUSES)]
    return "\n".join([*lines, "## Environment", "", *_table("Variable", ENVIRONMENT)])


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub("`([^`]*)`", r"\\fB\1\\fR", escaped)


def _tagged(rows: Rows) -> Iterator[str]:
    yield from (f".TP\n.B {_roff(name)}\n{_roff(meaning)}" for name, meaning in rows)


def man_page() -> str:
    """Every command as a page for man(1), in roff."""
    program, sections = entries()
    lines = [
        f'.\\" Written by `{_COMMAND}`; change the help texts instead.',
        f'.TH IMGDIFFD 1 "" "imgdiffd {__version__}"',
    ]
    lines += [".SH NAME", "imgdiffd \\- make image\\-difference datasets from caption files", ".SH SYNOPSIS"]
    lines += [_roff(program.usage), ".SH DESCRIPTION", *map(_roff, program.paragraphs), ".SH OPTIONS"]
    lines += [_roff("`--config` and `--help` work before and after the command."), *_tagged(program.options)]
    for heading, found in sections.items():
        lines.append(f".SH {heading.upper()}")
        for entry in found:
            lines += [f".SS {_roff(entry.usage)}", "\n.PP\n".join(map(_roff, entry.paragraphs))]
            lines += _tagged(entry.arguments + entry.options)
    lines += [".SH EXIT STATUS", *_tagged(EXIT_STATUSES), ".SH ENVIRONMENT", *_tagged(ENVIRONMENT), ".SH FILES"]
    files = "./imgdiffd.toml, ~/.config/imgdiffd/imgdiffd.toml, /etc/imgdiffd/imgdiffd.toml"
    lines += _tagged([(files, "The settings: the first that exists. `imgdiffd settings` lists every key.")])
    lines += _tagged(
        [("/var/lib/imgdiffd", "Database, images, inbox and socket, where the settings say nothing else.")]
    )
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Every setting in Markdown: meaning, values, default, variable, and whether a reload applies it."""
    from imgdiffd.daemon.reload import RELOADABLE
    from imgdiffd.settings import Settings, documented

    kinds = Settings.model_json_schema()["properties"]
    lines = [_NOTE, "# Settings", "", "They come from a TOML file and from the environment, which wins over the file."]
    lines += ["The file is that of `--config`, else of `$IMGDIFFD_CONFIG`, else the first that exists of"]
    lines += [
        "`./imgdiffd.toml`, `~/.config/imgdiffd/imgdiffd.toml` and `/etc/imgdiffd/imgdiffd.toml`. Relative paths in"
    ]
    lines += ["the file start at the file's folder, those in the environment at the working folder.", ""]
    lines += ["`systemctl reload imgdiffd` (or SIGHUP) makes a running daemon read them again.", ""]
    for key, variable, default, meaning in documented():
        lines += [f"## {key}", "", f"{meaning[:1].upper()}{meaning[1:]}.", ""]
        lines += [f"- Values: {_kind(kinds[key])}", f"- Default: `{default}`", f"- Environment variable: `{variable}`"]
        lines += [f"- A reload applies it: {'yes' if key in RELOADABLE else 'no, a restart does'}", ""]
    return "\n".join(lines)


def _kind(schema: dict[str, Any]) -> str:
    """The values that a setting may have, in words."""
    match schema:
        case {"anyOf": [*several]}:
            return " or ".join(_kind(each) for each in several)
        case {"enum": [*values]}:
            return f"one of {', '.join(f'`{value}`' for value in values)}"
        case {"const": value}:
            return f"`{value}`"
        case {"type": "integer" | "number" as kind}:
            low = f"above {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else f"from {schema['minimum']}"
            return f"{'whole number' if kind == 'integer' else 'number'} {low} to {schema['maximum']:,}"
    return _KINDS[schema.get("format") or schema["type"]]


def pages() -> dict[str, str]:
    """Every generated page by file name."""
    return {"command-line.md": command_page(), "settings.md": settings_page(), "imgdiffd.1": man_page()}


def main(folder: Path = FOLDER) -> None:
    """Write every page into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
