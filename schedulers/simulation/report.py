"""A simulation's outcomes as a table for people and as JSON for programs."""

import json
from collections.abc import Sequence

from imgdiffd.schedulers.cost_table import CAPTIONS, PAPER_HOURS
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
    """Hours, utilisation, steals and batch sizes, a line for each policy; `outcomes` begin with our own."""
    devices = list(outcomes[0].busy_s)
    head = [
        "",
        "hours",
        "over bound",
        "than ours",
        "utilisation",
        *devices,
        "steals",
        "deaths",
        "pairs",
        "first sample",
    ]
    rows = [head]
    for one in outcomes:
        shares = [_percent(one.utilisation[name]) for name in devices]
        first = f"{one.first_sample_s / 60:.1f} min" if one.first_sample_s < float("inf") else "none"
        more = f"{100 * (one.seconds / outcomes[0].seconds - 1):+.1f} %" if one is not outcomes[0] else ""
        figures = [f"{one.hours:.2f}", _percent(one.over_bound), more, _percent(one.mean_utilisation), *shares]
        rows.append([one.policy, *figures, str(one.steals), str(one.deaths), str(one.most_painted), first])
    sizes = [["items a batch", *(str(stage) for stage in SIMULATED)]]
    sizes += [[one.policy, *(f"{one.mean_batch(stage):.1f}" for stage in SIMULATED)] for one in outcomes]
    return f"{_aligned(rows)}\npairs: painted and under way at once, at most\n\n{_aligned(sizes)}"


def room(outcomes: Sequence[Outcome]) -> str:
    """How much faster than the best of the others any policy could be, and how much of that ours is."""
    ours, *others = outcomes
    best = min(others, key=lambda one: one.seconds)
    gained = best.seconds / ours.seconds - 1
    return (
        f"the best of the others, {best.policy}, is {_percent(best.over_bound)} over the least possible: "
        f"no policy can be faster than it by more; {ours.policy} is by {_percent(gained)}"
    )


def beside_the_paper(ours: Outcome, captions: int, devices: int, device: str) -> str:
    """Our hours, beside those that the paper took for its captions on four A100s."""
    paper_days = PAPER_HOURS / 24
    return (
        f"{captions:,} captions on {devices} x {device}: {ours.hours:.1f} h, {ours.hours / 24:.2f} days; "
        f"the paper, {CAPTIONS:,} on 4 x A100: {PAPER_HOURS:.1f} h, {paper_days:.2f} days"
    )


def as_json(outcomes: Sequence[Outcome]) -> str:
    """The figures of `as_text` and the counts of every batch size, as a list of objects."""
    found = [
        {
            "policy": one.policy,
            "hours": one.hours,
            "bound_hours": one.bound_s / 3600,
            "utilisation": dict(one.utilisation),
            "steals": one.steals,
            "deaths": one.deaths,
            "most_open": one.most_open,
            "most_painted": one.most_painted,
            "first_sample_s": one.first_sample_s if one.first_sample_s < float("inf") else None,
            "batch_sizes": {str(stage): dict(sizes) for stage, sizes in one.batch_sizes.items()},
        }
        for one in outcomes
    ]
    return json.dumps(found, indent=2) + "\n"
