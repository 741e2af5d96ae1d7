"""What `imgdiffd status`, `watch` and `jobs` show: the daemon on one screen however many jobs it has, live or once."""

import time
from collections import deque
from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from imgdiffd.cli.terminal import ByWidth, cut, duration, plain
from imgdiffd.errors import counted, visible
from imgdiffd.job import TERMINAL_JOB_STATES, JobState
from imgdiffd.status import GateView, JobView, RemovalView, Status, summary

REFRESH_S = 0.5
PLAIN_LINE_S = 5.0
_RATE_WINDOW_S = 30.0
_DEVICES, _PROBLEMS, _LINES = 12, 8, 3  # shown at most
_STATE_STYLES = {"active": "green", "failed": "red", "paused": "yellow", "cancelled": "yellow"}


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


def status_view(status: Status, rates: Rates, job: int | None = None) -> RenderableType:
    """The whole screen, about 40 lines; of all jobs only `job`, if given."""
    parts: list[RenderableType] = []
    if status.paused:
        parts.append(Text("paused: nothing is started until `imgdiffd resume`", style="bold yellow"))
    parts.append(plain(summary(status), "bold"))
    parts += [_devices(status)] if status.devices else []
    shown = {f"{device.name} {device.state}: {device.detail}" for device in status.devices[:_DEVICES]}
    problems = [problem for problem in status.problems if problem not in shown]
    parts += [plain(f"! {problem}", "yellow") for problem in problems[:_PROBLEMS]]
    if (more := len(problems) - _PROBLEMS) > 0:
        parts.append(plain(f"! … and {more} more; `imgdiffd status --json` has them all", "yellow"))
    if job is None and not status.starting:
        parts.append(plain(_totals(status)))
    parts += _jobs(status, rates) if job is None else [part for view in status.jobs for part in job_view(view, rates)]
    if status.no_removal:
        parts.append(plain(f"no object removal: {status.no_removal}", "dim"))
    return Group(*parts)


def _devices(status: Status) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    reasons = {load.name: load.reason for load in status.scheduler.devices} if status.scheduler else {}
    for device in status.devices[:_DEVICES]:
        colour = {"ready": "green", "parked": "red"}.get(device.state, "yellow")
        detail = f"{device.running} running, {device.queued} queued" if device.state == "ready" else device.detail
        if device.state == "ready" and not device.running and status.open_tasks and device.name in reasons:
            detail = f"idle: {reasons[device.name]}"
        rare = [f"{name.replace('_', ' ')}: {count}" for name, count in sorted(device.counters.items())]
        detail = "; ".join([detail, *rare, *device.notes])
        table.add_row(plain(device.name, "bold"), plain(device.state, colour), plain(detail))
    if len(status.devices) > _DEVICES:
        table.add_row(f"… and {len(status.devices) - _DEVICES} more")
    return table


def _totals(status: Status) -> str:
    def counted(states: Sequence[JobState]) -> str:
        return ", ".join(f"{status.job_counts[state]:,} {state}" for state in states if status.job_counts.get(state))

    opened = counted([state for state in JobState if state not in TERMINAL_JOB_STATES])
    ended = counted([state for state in JobState if state in TERMINAL_JOB_STATES])
    return f"jobs: {opened or 'none open'}; ended: {ended or 'none'}"


def _jobs(status: Status, rates: Rates) -> list[RenderableType]:
    """The first one or two jobs stage by stage, and a few more in one line each."""
    still_open = sum(number for state, number in status.job_counts.items() if state not in TERMINAL_JOB_STATES)
    whole, lines = (1, 10) if still_open > 2 else (2, _LINES)
    parts = [each for job in status.jobs[:whole] for each in job_view(job, rates)]
    if rest := status.jobs[whole : whole + lines]:
        parts.append(jobs_table(rest))
    if (more := still_open - whole - lines) > 0:
        parts.append(Text(f"… and {more:,} more that are open; `imgdiffd jobs` lists them"))
    return parts


def job_view(job: JobView, rates: Rates) -> list[RenderableType]:
    """One job: what it is, its stages with bar, counts, rate and what fell out, and what came of its captions."""
    parts: list[RenderableType] = [
        Text.assemble(
            (f"job {job.id} ", "bold"), visible(job.name), ": ", (job.state, _style(job)), visible(_note(job))
        )
    ]
    if job.captions:
        parts += [_stages(job, rates)] if job.stages else []
        others = {"rejected": job.rejected, "failed": job.failed, "cancelled": job.cancelled}
        gave = f"{counted(job.sampled, 'caption')} gave {counted(job.samples, 'sample')}"
        parts.append(Text(", ".join([gave, *(f"{n} {how}" for how, n in others.items() if n)])))
    if job.gate.too_different or job.gate.too_similar:
        parts.append(Text(_gate_line(job.gate)))
    if job.removal.total:
        rate = rates.update(f"{job.id}/removal", job.removal.done)
        parts.append(Text(_removal_line(job.removal) + (f", {60 * rate:.0f} per min" if rate else "")))
    return parts


def _gate_line(gate: GateView) -> str:
    too_different = f"{counted(gate.too_different, 'pair')} too different"
    line = f"rejected by the similarity gate: {too_different}, {gate.too_similar} too similar"
    return f"{line}; {gate.half_painted} of them given up half-painted" if gate.half_painted else line


def _style(job: JobView) -> str:
    return _STATE_STYLES.get(job.state, "")


def _note(job: JobView) -> str:
    """What there is to say of the job as a whole: why it failed, what it brought, and when it will be done."""
    if job.error:
        return f": {job.error}"
    if job.duplicate_of is not None:
        return f": the same content as job {job.duplicate_of}"
    brought = [counted(job.captions, "caption")]
    brought += [counted(job.duplicates, "duplicate")] if job.duplicates else []
    brought += [f"{job.problems} unreadable"] if job.problems else []
    note = f", {', '.join(brought)}"
    return f"{note}, ETA {duration(job.eta_s)}" if job.state == "active" else note


def _stages(job: JobView, rates: Rates) -> RenderableType:
    table, narrow = Table(box=None, padding=(0, 2, 0, 0)), Table(box=None, padding=(0, 2, 0, 0))
    for header in ("stage", "", "done", "of about", "per min", "stopped here"):
        table.add_column(header, justify="left" if header in {"stage", ""} else "right")
    for header in ("stage", "done", "of about"):
        narrow.add_column(header, justify="left" if header == "stage" else "right", no_wrap=True)
    for view in job.stages:
        rate = rates.update(f"{job.id}/{view.stage}", view.done)
        bar = ProgressBar(total=max(view.expected, 1), completed=view.done, width=30)
        table.add_row(
            view.stage, bar, str(view.done), str(view.expected), f"{60 * rate:.0f}" if rate else "", str(view.stopped)
        )
        narrow.add_row(view.stage, str(view.done), str(view.expected))
    return ByWidth(table, narrow)


def _removal_line(removal: RemovalView) -> str:
    others = {"failed": removal.failed, "cancelled": removal.cancelled}
    told = "".join(f", {number} {how}" for how, number in others.items() if number)
    return (
        f"object removal: {removal.done} of {counted(removal.total, 'pair')} done{told},"
        f" {removal.sampled} gave {counted(removal.samples, 'sample')}"
    )


def jobs_table(jobs: Sequence[JobView]) -> RenderableType:
    """One row a job; where the screen is narrow, names and notes are cut, and then some columns are left out."""
    return ByWidth(_wide_jobs(jobs), _narrow_jobs(jobs))


def _narrow_jobs(jobs: Sequence[JobView]) -> Table:
    number = Column("job", justify="right", no_wrap=True, min_width=max((len(str(job.id)) for job in jobs), default=0))
    done = Column("done of", justify="right", no_wrap=True)
    table = Table(number, Column("name", min_width=4), Column("state", no_wrap=True), done, box=SIMPLE_HEAD)
    table.pad_edge, table.show_edge = False, False
    for job in jobs:
        ended = job.sampled + job.rejected + job.failed
        table.add_row(str(job.id), cut(job.name), plain(job.state, _style(job)), f"{ended}/{job.captions}")
    return table


def _wide_jobs(jobs: Sequence[JobView]) -> Table:
    narrow = [Column(header, justify="right", no_wrap=True) for header in ("done", "of", "samples", "ETA")]
    number = Column("job", justify="right", no_wrap=True, min_width=max((len(str(job.id)) for job in jobs), default=0))
    table = Table(number, Column("name", max_width=40), Column("state", no_wrap=True), *narrow, Column())
    table.box, table.pad_edge, table.show_edge = SIMPLE_HEAD, False, False
    for job in jobs:
        done = job.sampled + job.rejected + job.failed
        eta = duration(job.eta_s) if job.state == "active" else ""
        note_text = _note(job).lstrip(": ") if job.error or job.duplicate_of is not None else ""
        table.add_row(
            str(job.id), cut(job.name), plain(job.state, _style(job)),
            str(done), str(job.captions), str(job.samples), eta, cut(note_text),
        )  # fmt: skip
    return table


def plain_line(job: JobView) -> str:
    """One line for logs: every stage's counts, object removal's where there is any, and the ETA."""
    counts = [f"{view.stage} {view.done}/{view.expected}" for view in job.stages if job.captions]
    if job.removal.total:
        counts.append(f"removal {job.removal.done}/{job.removal.total}")
    if job.error:
        return visible(f"job {job.id} {job.state}: {job.error}")
    eta = f"  ETA {duration(job.eta_s)}" if job.state == "active" else ""
    return f"job {job.id} {job.state}  {'  '.join(counts)}  samples {job.samples}{eta}"


def _plain_lines(status: Status) -> list[str]:
    """A line for each job that is worked on, or one for all where there are many."""
    working = [job for job in status.jobs if job.state == "active" or (job.removal.waiting and not status.no_removal)]
    paused = ["paused"] if status.paused else []
    if not working or len(working) > _LINES:
        return ["; ".join([*paused, visible(summary(status))])]
    return paused + [plain_line(job) for job in working]


def follow(
    fetch: Callable[[], Status], finished: Callable[[Status], bool], console: Console, job: int | None = None
) -> Status:
    """Show progress until `finished`; returns the last status. Ctrl-C passes through.

    Elsewhere than in a terminal, plain lines take the place of the screen.
    """
    if not console.is_terminal:
        return _follow_in_lines(fetch, finished, console, job)
    rates, status = Rates(), fetch()
    with Live(status_view(status, rates, job), console=console, refresh_per_second=4, transient=False) as live:
        while not finished(status):
            time.sleep(REFRESH_S)
            status = fetch()
            live.update(status_view(status, rates, job))
    return status


def _follow_in_lines(
    fetch: Callable[[], Status], finished: Callable[[Status], bool], console: Console, job: int | None
) -> Status:
    """A line for each job every PLAIN_LINE_S, and at the end; none that says what the one before it said."""
    said: list[str] = []
    due_s = 0.0
    while True:
        status = fetch()
        over = finished(status)
        lines = [*map(plain_line, status.jobs)] if over and job is not None else _plain_lines(status)
        if over or time.monotonic() >= due_s:
            due_s = time.monotonic() + PLAIN_LINE_S
            for line in lines:
                if line not in said:
                    console.print(Text(line), soft_wrap=True)
            said = lines
        if over:
            return status
        time.sleep(REFRESH_S)
