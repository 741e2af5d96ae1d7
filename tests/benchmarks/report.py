"""What the benchmarks found, as tables for people and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from imgdiffd.schedulers.cost_table import A100, CAPTIONS, ITEMS_PER_CAPTION, PAPER_HOURS, CostTable, projected_hours
from tests.benchmarks.measuring import Figure, Ratio


@dataclass(frozen=True)
class Report:
    """All that one run found on `device`."""

    device: str
    ratios: Sequence[Ratio]
    figures: Sequence[Figure]
    costs: Sequence[CostTable]  # one, unless measuring it failed
    notes: Sequence[str]
    failed: Sequence[str]

    @property
    def missed(self) -> list[str]:
        """The names of what missed its target or could not be measured."""
        found: list[Ratio | Figure] = [*self.ratios, *self.figures]
        return [*self.failed, *(each.what for each in found if each.met is False)]

    def show(self, console: Console) -> None:
        """Prints everything as tables."""
        console.print(f"measured on {self.device}")
        console.print(_ratio_table(self.ratios))
        if self.figures:
            console.print(_figure_table(self.figures))
        for costs in self.costs:
            console.print(_cost_table(costs))
        for note in self.notes:
            console.print(f"note: {note}", markup=False)

    def write(self, file: Path, costs_file: Path) -> None:
        """Writes everything to `file`, and to `costs_file` the table that `imgdiffd simulate --costs` reads."""
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = {
            "device": self.device,
            "ratios": [{**asdict(each), "met": each.met} for each in self.ratios],
            "figures": [{**asdict(each), "met": each.met} for each in self.figures],
            "costs": [json.loads(each.to_json()) for each in self.costs],
            "days": [
                {"here": _days(each), "A100, estimated": _days(A100), "paper": PAPER_HOURS / 24} for each in self.costs
            ],
            "notes": list(self.notes),
        }
        file.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
        for costs in self.costs:
            costs_file.write_text(costs.to_json() + "\n", "utf-8")


def _met(met: bool | None) -> str:
    return "" if met is None else " met" if met else " MISSED"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio_table(ratios: Sequence[Ratio]) -> Table:
    table = Table("ours / theirs", "time", "FLOPs", "memory", "a second", "target", box=SIMPLE_HEAD, pad_edge=False)
    for each in ratios:
        rate = "" if each.rate is None else " / ".join(map(_rate, each.rate))
        target = "" if each.target is None else f"≤ {each.target:.2f}{_met(each.met)}"
        table.add_row(each.what, _number(each.seconds), _number(each.flops), _number(each.peak), rate, target)
    return table


def _figure_table(figures: Sequence[Figure]) -> Table:
    table = Table("measured", "value", "target", box=SIMPLE_HEAD, pad_edge=False)
    for each in figures:
        bound = "≤" if each.at_most else "≥"
        target = "" if each.target is None else f"{bound} {each.target:g} {each.unit}{_met(each.met)}"
        table.add_row(each.what, f"{each.value:.3g} {each.unit}", target)
    return table


def _days(costs: CostTable) -> float:
    return projected_hours(costs, CAPTIONS, 4) / 24


def _cost_table(costs: CostTable) -> Table:
    columns = ("seconds per item", f"here: {costs.source}", "A100, estimated", "the paper, on A100")
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for stage in ITEMS_PER_CAPTION:
        table.add_row(stage, f"{costs.seconds_per_item[stage]:.4f}", f"{A100.seconds_per_item[stage]:.4f}", "")
    days = [_days(costs), _days(A100), PAPER_HOURS / 24]
    table.add_row(
        f"{CAPTIONS:,} captions on 4 such devices", *(f"{each * 24:.1f} h = {each:.2f} days" for each in days)
    )
    return table
