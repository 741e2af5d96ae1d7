"""A simulation's outcomes as a table for people and as JSON for programs.

It owns the words; it does not know how the figures came about.
"""

import json
from collections.abc import Sequence

from imgdiffd.schedulers.simulation.outcome import Outcome
from imgdiffd.schedulers.simulation.scenario import SIMULATED


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def as_text(outcomes: Sequence[Outcome]) -> str:
    """Hours, utilisation, steals and batch sizes, a line for each policy."""
    devices = list(outcomes[0].busy_s)
    head = ["", "hours", "over bound", "utilisation", *devices, "steals", "deaths", "open at most", "first sample"]
    rows = [head]
    for one in outcomes:
        shares = [_percent(one.utilisation[name]) for name in devices]
        first = f"{one.first_sample_s / 60:.1f} min" if one.first_sample_s < float("inf") else "none"
        figures = [f"{one.hours:.2f}", _percent(one.over_bound), _percent(one.mean_utilisation), *shares]
        rows.append([one.policy, *figures, str(one.steals), str(one.deaths), str(one.most_open), first])
    sizes = [["items a batch", *(str(stage) for stage in SIMULATED)]]
    sizes += [[one.policy, *(f"{one.mean_batch(stage):.1f}" for stage in SIMULATED)] for one in outcomes]
    return f"{_aligned(rows)}\n\n{_aligned(sizes)}"


def as_json(outcomes: Sequence[Outcome]) -> str:
    """The same and the counts of every batch size, as a list of objects."""
    found = [
        {
            "policy": one.policy,
            "hours": one.hours,
            "bound_hours": one.bound_s / 3600,
            "utilisation": dict(one.utilisation),
            "steals": one.steals,
            "deaths": one.deaths,
            "most_open": one.most_open,
            "first_sample_s": one.first_sample_s if one.first_sample_s < float("inf") else None,
            "batch_sizes": {str(stage): dict(sizes) for stage, sizes in one.batch_sizes.items()},
        }
        for one in outcomes
    ]
    return json.dumps(found, indent=2) + "\n"
