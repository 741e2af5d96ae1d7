"""How another profile's funnel, what it still needs, and the yield of each bound look in a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from imgdiffd.choosing.bounds import ScoreBounds
from imgdiffd.choosing.funnel import ChoiceStep
from imgdiffd.choosing.plan import Prospect, Redo
from imgdiffd.cli.terminal import plain
from imgdiffd.errors import counted
from imgdiffd.pipeline import Stage
from imgdiffd.status import about

_BAR = 24  # characters of the longest bar


def plan_parts(plan: Prospect) -> Iterator[RenderableType]:
    """Both funnels, then what is still needed, and why."""
    yield plain(f"profile {plan.profile}, from what is stored of {counted(plan.captions, 'caption')}", "bold")
    yield _funnels(plan)
    if plan.not_ended:
        yield plain(f"{counted(plan.not_ended, 'caption')} that have not ended are left out")
    for redo in plan.redo:
        yield plain(_why(redo))
    if plan.foreign:
        yield plain(
            f"{counted(plan.foreign, 'caption')} of jobs that other models worked on, or models that are not recorded: "
            "nothing of them is taken over"
        )
    if not plan.work:
        yield plain("nothing is missing: no device is needed")
        return
    yield _work(plan)
    if plan.painted_again:
        yield plain(
            f"{counted(plan.painted_again, 'pair')} must be painted again, from the same seeds: their images were not "
            'kept (keep_pictures = "all" keeps them)'
        )
    yield plain(f"in all {about(plan.seconds)} of one device, by what a caption has cost so far")


def _funnels(plan: Prospect) -> Table:
    numbers = [Column(name, justify="right", no_wrap=True) for name in ("today", "then", "open")]
    reasons = [Column(name, overflow="fold") for name in ("won", "lost")]
    table = Table(Column("step", no_wrap=True), *numbers, *reasons, box=SIMPLE_HEAD, pad_edge=False)
    for step in plan.steps:
        name = step.name if step.counts == "captions" else f"  {step.name}"
        table.add_row(plain(name), str(step.today), str(step.then), str(step.open or ""), *_changes(step))
    return table


def _changes(step: ChoiceStep) -> tuple[RenderableType, RenderableType]:
    return plain(_told(step.won), "green"), plain(_told(step.lost), "yellow")


def _told(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())


def _why(redo: Redo) -> str:
    settings = ", ".join(redo.settings) if redo.settings else f"{redo.stage} was left out"
    return f"{counted(redo.captions, 'caption')} of profile {redo.profile}: anew from {redo.stage} on ({settings})"


def _work(plan: Prospect) -> Table:
    numbers = [Column(name, justify="right") for name in ("captions", "regions known", "time")]
    table = Table("still needed", *numbers, box=SIMPLE_HEAD, pad_edge=False)
    for work in plan.work:
        regions = str(work.regions or "") if work.stage is not Stage.GENERATE else ""
        table.add_row(work.stage, str(work.captions or "what follows"), regions, about(work.seconds))
    return table


def bounds_parts(title: str, found: Sequence[ScoreBounds]) -> Iterator[RenderableType]:
    """A histogram for each bound, with what a bound at each of its edges would yield."""
    yield plain(title if found else f"{title}: there are no scores yet", "bold")
    for bounds in found:
        own, side = bounds.own, "above" if bounds.above else "below"
        missing = f", {bounds.missing:,} have no such score" if bounds.missing else ""
        told = f"{own.passing:,} of {sum(bounds.counts):,} {bounds.of} lie {side} it{missing}; {own.samples:,} samples"
        yield plain("")
        yield plain(f"{bounds.key} = {own.bound:g}: {told}")
        yield _histogram(bounds)


def _histogram(bounds: ScoreBounds) -> Table:
    numbers = [Column(name, justify="right", no_wrap=True) for name in ("count", "pass", "samples", "open")]
    shape = (Column("bound", justify="right"), Column("from here on", width=_BAR))
    table = Table(*shape, *numbers, "profiles", box=SIMPLE_HEAD, pad_edge=False)
    most = max(bounds.counts, default=0) or 1
    counts = (*bounds.counts, 0)
    for place, (choice, count) in enumerate(zip(bounds.choices, counts, strict=True)):
        marks = [f"{name} {value:g}" for name, value in bounds.marks.items() if _row_of(bounds, value) == place]
        kept = (choice.bound >= bounds.own.bound) == bounds.above
        bar = Text("█" * round(_BAR * count / most) or ("▏" if count else ""), style="green" if kept else "yellow")
        rest = (str(count or ""), str(choice.passing), str(choice.samples), str(choice.open or ""))
        table.add_row(f"{choice.bound:g}", bar, *rest, plain(", ".join(marks)))
    return table


def _row_of(bounds: ScoreBounds, value: float) -> int:
    """The row in whose bin a value lies; the first or the last where it lies beyond all."""
    return min(max(sum(edge <= value for edge in bounds.edges) - 1, 0), len(bounds.edges) - 1)
