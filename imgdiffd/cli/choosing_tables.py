"""How another profile's funnel and what it still needs look in a terminal."""

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Column, Table

from imgdiffd.choosing.funnel import ChoiceStep
from imgdiffd.choosing.plan import Redo, RefilterPlan
from imgdiffd.cli.terminal import plain
from imgdiffd.errors import counted
from imgdiffd.pipeline import Stage
from imgdiffd.status import about


def plan_parts(plan: RefilterPlan) -> Iterator[RenderableType]:
    """Both funnels, then what is still needed, and why."""
    yield plain(f"profile {plan.profile}, from what is stored of {counted(plan.captions, 'caption')}", "bold")
    yield _funnels(plan)
    for redo in plan.redo:
        yield plain(_why(redo))
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


def _funnels(plan: RefilterPlan) -> Table:
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


def _work(plan: RefilterPlan) -> Table:
    numbers = [Column(name, justify="right") for name in ("captions", "regions known", "time")]
    table = Table("still needed", *numbers, box=SIMPLE_HEAD, pad_edge=False)
    for work in plan.work:
        regions = str(work.regions or "") if work.stage is not Stage.GENERATE else ""
        table.add_row(work.stage, str(work.captions or "what follows"), regions, about(work.seconds))
    return table
