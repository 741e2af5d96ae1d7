"""How a command line is understood: headings, the nearest command, options that stand anywhere, errors in one line."""

import difflib
import re
from collections.abc import Iterator
from typing import Any

import typer
from typer._click import Command as SomeCommand  # typer keeps its copy of click to itself, but for what stands here
from typer._click import Context, HelpFormatter
from typer._click.exceptions import BadOptionUsage, MissingParameter, NoArgsIsHelpError, NoSuchOption, UsageError
from typer._click.shell_completion import CompletionItem
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

__all__ = ["Command", "CompletionItem", "Context", "Group", "SomeCommand", "UsageError"]
PROGRAM = "imgdiffd"
_VERY_NEAR = 0.75  # more than difflib's 0.6, for which --json is near --version


class Command(TyperCommand):
    """A command whose help shows an argument by its name alone."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """`FILE...` for what must be there, where typer would write `{FILE}...`."""
        return [re.sub("[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the arguments, then the options."""
        for heading, kind in (("Arguments", "argument"), ("Options", "option")):
            if rows := help_rows(self, ctx, kind):
                with formatter.section(heading):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """Commands under headings; a mistyped one is answered with the nearest."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, SomeCommand | None, list[str]]:
        """The command that the first word names. Raises UsageError, with the nearest name where one is near."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            before = ctx.command_path.removeprefix(PROGRAM).lstrip()
            near = self.nearest(args[0])
            guess = f"; did you mean '{f'{before} {near}'.lstrip()}'?" if near else ""
            raise UsageError(f"there is no command '{f'{before} {args[0]}'.lstrip()}'{guess}", ctx)
        return super().resolve_command(ctx, args)

    def nearest(self, word: str) -> str | None:
        """The name of the command that `word` may be a slip of."""
        return next(iter(difflib.get_close_matches(word, self.commands)), None)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the commands under the headings that they were added with."""
        for heading, commands in self.by_heading().items():
            with formatter.section(heading):
                formatter.write_dl([(name, command.get_short_help_str(limit=200)) for name, command in commands])

    def by_heading(self) -> dict[str, list[tuple[str, SomeCommand]]]:
        """Names and commands by heading, in the order in which they were added."""
        found: dict[str, list[tuple[str, SomeCommand]]] = {}
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None)
            found.setdefault(heading if isinstance(heading, str) else "Commands", []).append((name, command))
        return found


def help_rows(command: SomeCommand, context: Context, kind: str) -> list[tuple[str, str]]:
    """Name and meaning of each of a command's parameters that is an "argument" or an "option"."""
    shown = [param.get_help_record(context) for param in command.get_params(context) if param.param_type_name == kind]
    if kind == "argument":  # `FILE <list[Path]>  Files.  [required]`: usage says what is required, and a name is enough
        return [(re.sub(" <.*>$", "", row[0]), re.sub(r" *\[required]$", "", row[1])) for row in shown if row]
    return [row for row in shown if row]


def new_group(cls: type[Group] = Group, **more: Any) -> typer.Typer:
    """A typer application or group with this program's habits: plain help, no tracebacks but Python's own."""
    return typer.Typer(
        cls=cls,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **more,
    )


def commands_below(group: SomeCommand, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], SomeCommand]]:
    """Every command and group below `group` with the words that lead to it, a group before its commands."""
    if isinstance(group, Group):
        for name, command in group.commands.items():
            yield (*path, name), command
            yield from commands_below(command, (*path, name))


def share_option(root: SomeCommand, name: str) -> None:
    """Give the option `name` of `root` to every command below it, so that it may stand before or after the command."""
    (option,) = (param for param in root.params if param.name == name)
    for _, command in commands_below(root):
        command.params.append(option)


def in_our_words(error: typer.TyperException) -> str:
    """What is wrong with the command line: the option or argument, the reason, and where to read on."""
    if isinstance(error, NoArgsIsHelpError):
        return error.message
    path = error.ctx.command_path if isinstance(error, UsageError) and error.ctx else PROGRAM
    return f"{PROGRAM}: {_reason(error).rstrip('.')} (see `{path} --help`)"


def _reason(error: typer.TyperException) -> str:
    match error:
        case NoSuchOption():
            near = difflib.get_close_matches(error.option_name, error.possibilities or (), 1, _VERY_NEAR)
            return f"there is no option '{error.option_name}'" + (f"; did you mean '{near[0]}'?" if near else "")
        case BadOptionUsage():  # "Option '--config' requires an argument."
            return error.message.removeprefix("Option ").replace("'", "")
        case MissingParameter(param=TyperArgument() | TyperOption() as param):
            return f"{_name(param)} is missing"
        case typer.BadParameter(param=TyperArgument() | TyperOption() as param):
            return f"{_name(param)}: {error.message.removeprefix('Value error, ')}"
    return error.message[:1].lower() + error.message[1:]


def _name(param: TyperArgument | TyperOption) -> str:
    return param.get_error_hint().replace("'", "")
