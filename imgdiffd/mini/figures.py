"""What a measurement came to, beside what was promised."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """`hits` of `total`, to be at least `target`, or at most if `at_most`; None is for information only."""

    name: str
    hits: float
    total: float
    target: float | None = None
    at_most: bool = False

    @property
    def value(self) -> float:
        """The share of hits; 0 where nothing was measured."""
        return self.hits / self.total if self.total else 0.0

    @property
    def met(self) -> bool:
        """Whether the target is met; it is not where nothing was measured."""
        if self.target is None:
            return True
        return self.total > 0 and (self.value <= self.target if self.at_most else self.value >= self.target)


def share_of(name: str, outcomes: Iterable[bool], target: float | None = None) -> Figure:
    """How many of `outcomes` are true."""
    results = list(outcomes)
    return Figure(name, sum(results), len(results), target)


def table_of(figures: Sequence[Figure]) -> Table:
    """The figures beside their targets."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("", "measured", "target", "of", ""):
        table.add_column(header, justify="left" if not header else "right")
    for figure in figures:
        sign = "≤" if figure.at_most else "≥"
        target = "" if figure.target is None else f"{sign} {figure.target:.0%}"
        of = f"{figure.total:.0f}" if not figure.at_most else ""
        mark = "" if figure.target is None else ("[green]met[/]" if figure.met else "[red]missed[/]")
        table.add_row(figure.name, f"{figure.value:.1%}", target, of, mark)
    return table
