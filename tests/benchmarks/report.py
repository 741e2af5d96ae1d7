"""What the benchmarks found, as tables for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from imgdiffd.schedulers.cost_table import (
    A100,
    CAPTIONS,
    EXPECTED,
    ITEMS_PER_CAPTION,
    PAPER_HOURS,
    CostTable,
    projected_hours,
)
from tests.benchmarks.counting import Count, Graphs
from tests.benchmarks.measuring import Figure, Ratio


@dataclass(frozen=True)
class Report:
    """All that one run found on `device`."""

    device: str
    ratios: Sequence[Ratio]
    figures: Sequence[Figure]
    costs: Mapping[str, CostTable]  # by bundle
    notes: Sequence[str]
    failed: Sequence[str]
    counts: Sequence[Count] = ()
    graphs: Sequence[Graphs] = ()

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
        if self.counts:
            console.print(_count_table(self.counts))
        if self.graphs:
            console.print(_graph_table(self.graphs))
        for name, costs in self.costs.items():
            console.print(_cost_table(costs, EXPECTED.get(name, A100)))
        for note in self.notes:
            first, _, _ = note.partition("\n")  # CUDA's errors go on for paragraphs
            console.print(f"note: {first}", markup=False)

    def write(self, file: Path) -> list[Path]:
        """Writes everything to `file`, and beside it each bundle's cost table, whose files it returns."""
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = {
            "device": self.device,
            "ratios": [{**asdict(each), "met": each.met} for each in self.ratios],
            "figures": [{**asdict(each), "met": each.met} for each in self.figures],
            "counts": [asdict(each) for each in self.counts],
            "graphs": [asdict(each) for each in self.graphs],
            "costs": {name: json.loads(each.to_json()) for name, each in self.costs.items()},
            "days": {name: _days(each) for name, each in self.costs.items()}
            | {"A100, estimated": _days(A100), "the paper": PAPER_HOURS / 24},
            "notes": list(self.notes),
        }
        file.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")
        tables = {file.with_name(f"cost-table-{name}.json"): costs for name, costs in self.costs.items()}
        for path, costs in tables.items():
            path.write_text(costs.to_json() + "\n", "utf-8")
        return list(tables)


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


def _count_table(counts: Sequence[Count]) -> Table:
    columns = ("counted on fake CUDA tensors, eager", "launches", "of them moves", "GB read and written", "TFLOP")
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for each in counts:
        table.add_row(
            each.what, f"{each.launches:,}", str(each.moves), f"{each.bytes / 1e9:.1f}", f"{each.flops / 1e12:.2f}"
        )
    return table


def _graph_table(graphs: Sequence[Graphs]) -> Table:
    columns = ("compiled", "blocks", "graphs", "breaks", "shapes of products")
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for each in graphs:
        table.add_row(each.what, *map(str, (each.blocks, each.graphs, each.breaks, each.products)))
    return table


def _days(costs: CostTable) -> float:
    return projected_hours(costs, CAPTIONS, 4) / 24


def _cost_table(costs: CostTable, expected: CostTable) -> Table:
    columns = ("seconds per item", f"here: {costs.source}", "A100, estimated", "the paper, on A100")
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for stage in ITEMS_PER_CAPTION:
        table.add_row(stage, f"{costs.seconds_per_item[stage]:.4f}", f"{expected.seconds_per_item[stage]:.4f}", "")
    days = [_days(costs), _days(expected), PAPER_HOURS / 24]
    table.add_row(
        f"{CAPTIONS:,} captions on 4 such devices", *(f"{each * 24:.1f} h = {each:.2f} days" for each in days)
    )
    return table
