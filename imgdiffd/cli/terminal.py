"""How text, models, plans and the funnel look in a terminal."""

from collections.abc import Iterable, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

from imgdiffd.bundles.bundle import Model
from imgdiffd.errors import visible
from imgdiffd.pipeline import Role
from imgdiffd.schedulers.placement import Footprint, Plan
from imgdiffd.status import Funnel, FunnelStep

NARROW = 60  # columns, below which tables have fewer
_FILE_COLUMNS = 160


def duration(seconds: float | None) -> str:
    """`3 d 04:05`, `04:05:06` or `05:06`; an en dash for what is not known."""
    if seconds is None:
        return "–"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}"
    return f"{hours:02}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def plain(text: str, style: str = "") -> Text:
    """The text as it is: no markup in it is obeyed, and nothing in it reaches the terminal but what can be seen."""
    return Text(visible(text), style=style)


def cut(told: str, style: str = "") -> Text:
    """Text on one line, whose column may be made narrower than it: of columns that do not wrap, Rich cuts all alike."""
    text = plain(told, style)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


class Screen(Console):
    """A console that says when nobody reads it any more, as `print` does: rich's own would end the process with 1."""

    def on_broken_pipe(self) -> None:
        """Let the command's end say so."""
        raise BrokenPipeError


def wide_console() -> Console:
    """A console whose tables are not squeezed where nobody sees a terminal's width: in a file or a pipe."""
    console = Screen()
    return console if console.is_terminal else Screen(width=_FILE_COLUMNS)


class ByWidth:
    """Shown as `wide` where there are NARROW columns and more, else as `narrow`."""

    def __init__(self, wide: RenderableType, narrow: RenderableType) -> None:
        self._wide, self._narrow = wide, narrow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The one that fits."""
        yield self._wide if options.max_width >= NARROW else self._narrow


def models_table(rows: Iterable[tuple[Role, Model, bool]]) -> Table:
    """One row a role: the model that plays it, its licence and size, and whether it is on this machine."""
    table = Table(
        "role", Column("model", overflow="fold"), "licence", "precision", "weights, GB", "here", box=SIMPLE_HEAD
    )
    owners: dict[str, Role] = {}
    for role, model, is_here in rows:
        owner = owners.setdefault(model.weights, role)
        size = "" if model.weights_gb is None else f"{model.weights_gb:.2f}"
        size = size if owner is role else f"as {owner}"
        here = Text("yes", style="green") if is_here else Text("no", style="red")
        licence = plain(model.licence or "unknown")
        table.add_row(role, plain(model.label), licence, plain(model.precision), size, here)
    return table


def plan_table(plan: Plan, taken: Mapping[Role, Footprint]) -> Table:
    """One row a device and role: what it takes and why it is there; then what all of them take of the device."""
    narrow = [Column(name, no_wrap=True) for name in ("device", "role", "weights, GB", "peak, GB")]
    table = Table(*narrow, "why", box=SIMPLE_HEAD)
    for placement in plan.placements:
        owners: dict[str, Role] = {}
        for number, (role, reason) in enumerate(zip(placement.roles, placement.reasons, strict=True)):
            owner = owners.setdefault(taken[role].weights, role)
            weights = f"{taken[role].weights_bytes / 1e9:.2f}" if owner is role else f"as {owner}"
            peak = f"{taken[role].peak_bytes / 1e9:.2f}"
            table.add_row(plain("" if number else placement.device), role, weights, peak, plain(reason.text))
        whole = placement.used_bytes + placement.left_bytes
        used = f"{placement.used_bytes / 1e9:.1f} of {whole / 1e9:.1f}"
        first = plain("" if placement.roles else placement.device)
        every = Text("all weights and the largest peak", style="dim")
        table.add_row(first, "", Text(used, style="bold"), "", every, end_section=True)
    for role, reason in plan.left_out:
        table.add_row(Text("none", style="red"), role, "", "", plain(reason.text))
    return table


def funnel_table(funnel: Funnel) -> RenderableType:
    """The way from captions to samples, with what was lost at each narrowing and why, and where they all stand."""
    lines = [_narrow_step(step) for step in (*funnel.steps, *funnel.ends)]
    return ByWidth(_wide_funnel(funnel), Group("funnel", *lines))


def _wide_funnel(funnel: Funnel) -> Table:
    table = Table(title="funnel", box=None, padding=(0, 2, 0, 0), title_justify="left")
    for header in ("step", "count", "share", "waiting", "lost before it"):
        is_text = header in {"step", "lost before it"}
        table.add_column(header, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for step in funnel.steps:
        _add_step(table, step)
    table.add_section()
    for step in funnel.ends:
        _add_step(table, step)
    return table


def _add_step(table: Table, step: FunnelStep) -> None:
    table.add_row(
        plain(_indent(step) + step.name), str(step.count), _share(step), str(step.waiting or ""), plain(_lost(step))
    )


def _narrow_step(step: FunnelStep) -> Text:
    share, waiting = _share(step), f", {step.waiting} waiting" if step.waiting else ""
    lost = f"\n    lost: {_lost(step)}" if step.lost else ""
    text = f"{_indent(step)}{step.name}: {step.count}{f' ({share})' if share else ''}{waiting}"
    return Text(visible(text) + lost, overflow="fold")


def _indent(step: FunnelStep) -> str:
    return "" if step.counts in {"captions", "pairs"} else "  "


def _share(step: FunnelStep) -> str:
    return f"{step.count / step.base:.0%}" if step.base else ""


def _lost(step: FunnelStep) -> str:
    return visible(", ".join(f"{reason} {count}" for reason, count in step.lost.items()))
