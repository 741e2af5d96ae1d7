"""How status, funnel, models and plans look in a terminal; elsewhere plain lines take the place of bars."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from imgdiffd.bundles.bundle import Model
from imgdiffd.pipeline import Role
from imgdiffd.schedulers.placement import Footprint, Plan
from imgdiffd.status import Funnel, JobView, RemovalView, Status

REFRESH_S = 0.5
PLAIN_LINE_S = 5.0
_RATE_WINDOW_S = 30.0
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


class Rates:
    """Items a second per key over the last half minute, from counters sampled at any interval."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._points: dict[str, deque[tuple[float, int]]] = {}

    def update(self, key: str, count: int) -> float:
        """Note that `key` stands at `count` now; returns its rate, 0 while unknown."""
        now = self._clock()
        points = self._points.setdefault(key, deque())
        points.append((now, count))
        while len(points) > 2 and points[0][0] < now - _RATE_WINDOW_S:
            points.popleft()
        (first_time, first_count), (last_time, last_count) = points[0], points[-1]
        return (last_count - first_count) / (last_time - first_time) if last_time > first_time else 0.0


def wide_console() -> Console:
    """A console whose tables are not squeezed where nobody sees a terminal's width: in a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_COLUMNS)


def models_table(rows: Iterable[tuple[Role, Model, bool]]) -> Table:
    """One row a role: the model that plays it, its licence and size, and whether it is on this machine."""
    table = Table(
        "role", Column("model", overflow="fold"), "licence", "precision", "weights, GB", "here", box=SIMPLE_HEAD
    )
    for role, model, is_here in rows:
        size = "" if model.weights_gb is None else f"{model.weights_gb:.2f}"
        here = "[green]yes[/]" if is_here else "[red]no[/]"
        table.add_row(role, escape(model.label), model.licence or "unknown", model.precision, size, here)
    return table


def plan_table(plan: Plan, taken: Mapping[Role, Footprint]) -> Table:
    """One row a device and role: what it takes and why it is there; then what all of them take of the device."""
    narrow = [Column(name, no_wrap=True) for name in ("device", "role", "weights, GB", "peak, GB")]
    table = Table(*narrow, "why", box=SIMPLE_HEAD)
    for placement in plan.placements:
        for number, (role, reason) in enumerate(zip(placement.roles, placement.reasons, strict=True)):
            sizes = (f"{taken[role].weights_bytes / 1e9:.2f}", f"{taken[role].peak_bytes / 1e9:.2f}")
            table.add_row("" if number else placement.device, role, *sizes, reason.text)
        whole = placement.used_bytes + placement.left_bytes
        used = f"{placement.used_bytes / 1e9:.1f} of {whole / 1e9:.1f}"
        first = "" if placement.roles else placement.device
        table.add_row(first, "", f"[bold]{used}[/]", "", "[dim]all weights and the largest peak[/]", end_section=True)
    for role, reason in plan.left_out:
        table.add_row("[red]none[/]", role, "", "", reason.text)
    return table


def _devices(status: Status) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    reasons = {load.name: load.reason for load in status.scheduler.devices} if status.scheduler else {}
    for device in status.devices:
        colour = {"ready": "green", "parked": "red"}.get(device.state, "yellow")
        detail = f"{device.running} running, {device.queued} queued" if device.state == "ready" else device.detail
        if device.state == "ready" and not device.running and status.open_tasks and device.name in reasons:
            detail = f"idle: {escape(reasons[device.name])}"
        rare = [f"{name.replace('_', ' ')}: {count}" for name, count in sorted(device.counters.items())]
        detail = "; ".join([detail, *rare, *map(escape, device.notes)])
        table.add_row(f"[bold]{device.name}[/]", f"[{colour}]{device.state}[/]", detail)
    return table


def job_table(job: JobView, rates: Rates) -> Table:
    """One job's stages: bar, counts, rate, what fell out."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("stage", "", "done", "of about", "per min", "stopped here"):
        table.add_column(header, justify="left" if header in {"stage", ""} else "right")
    for view in job.stages:
        rate = rates.update(f"{job.id}/{view.stage}", view.done)
        bar = ProgressBar(total=max(view.expected, 1), completed=view.done, width=30)
        table.add_row(
            view.stage, bar, str(view.done), str(view.expected), f"{60 * rate:.0f}" if rate else "", str(view.stopped)
        )
    return table


def status_view(status: Status, rates: Rates, job: int | None = None) -> RenderableType:
    """The whole screen of `imgdiffd watch`."""
    parts: list[RenderableType] = [_devices(status)]
    parts += [Text(f"! {problem}", style="yellow") for problem in status.problems]
    for view in status.jobs:
        if job is not None and view.id != job:
            continue
        heading = f"[bold]job {view.id}[/] {view.name}: {view.state}, {view.captions} captions"
        if view.state == "active":
            heading += f", ETA {duration(view.eta_s)}"
        parts.append(Text.from_markup(heading))
        parts.append(job_table(view, rates))
        parts.append(Text(f"{view.sampled} captions gave {view.samples} samples"))
        if view.removal.total:
            rate = rates.update(f"{view.id}/removal", view.removal.done)
            parts.append(Text(_removal_line(view.removal) + (f", {60 * rate:.0f} per min" if rate else "")))
    if status.no_removal:
        parts.append(Text(f"no object removal: {status.no_removal}", style="dim"))
    return Group(*parts)


def _removal_line(removal: RemovalView) -> str:
    failed = f", {removal.failed} failed" if removal.failed else ""
    progress = f"{removal.done} of {removal.total} pairs done{failed}"
    return f"object removal: {progress}, {removal.sampled} gave {removal.samples} samples"


def plain_line(job: JobView) -> str:
    """One line for logs: every stage's counts, object removal's where there is any, and the ETA."""
    counts = [f"{view.stage} {view.done}/{view.expected}" for view in job.stages]
    if job.removal.total:
        counts.append(f"removal {job.removal.done}/{job.removal.total}")
    return f"job {job.id} {job.state}  {'  '.join(counts)}  samples {job.samples}  ETA {duration(job.eta_s)}"


def follow(
    fetch: Callable[[], Status], finished: Callable[[Status], bool], console: Console, job: int | None = None
) -> Status:
    """Show progress until `finished`; returns the last status. Ctrl-C passes through."""
    rates = Rates()
    status = fetch()
    if not console.is_terminal:
        printed = float("-inf")
        while not finished(status):
            if time.monotonic() - printed >= PLAIN_LINE_S:
                printed = time.monotonic()
                for view in status.jobs:
                    removing = view.removal.waiting and not status.no_removal
                    if (job is None or view.id == job) and (view.state == "active" or removing):
                        console.print(plain_line(view), highlight=False, soft_wrap=True)
            time.sleep(REFRESH_S)
            status = fetch()
        return status
    with Live(status_view(status, rates, job), console=console, refresh_per_second=4, transient=False) as live:
        while not finished(status):
            time.sleep(REFRESH_S)
            status = fetch()
            live.update(status_view(status, rates, job))
    return status


def funnel_table(funnel: Funnel) -> Table:
    """The way from captions to samples, with what was lost at each narrowing and why."""
    table = Table(title="funnel", box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("step")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    table.add_column("lost before it")
    previous = 0
    for step in funnel.steps:
        base = previous if step.base is None else step.base
        share = f"{step.count / base:.0%}" if base else ""
        lost = ", ".join(f"{reason} {count}" for reason, count in step.lost.items())
        table.add_row(step.name, str(step.count), share, lost)
        previous = step.count
    return table
