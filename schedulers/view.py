"""The scheduler's statistics as the records that `imgdiffd status --json` shows.

It owns that translation; it does not know how the figures came about.
"""

from imgdiffd.schedulers.statistics import DeviceStatistics, Statistics
from imgdiffd.status import CostView, LoadView, SchedulerView


def scheduler_view(statistics: Statistics) -> SchedulerView:
    """All of `statistics` that the rest of a status does not tell already."""
    return SchedulerView(
        devices=tuple(_load(name, device) for name, device in statistics.devices.items()),
        admission=statistics.admission,
        held_back=statistics.held_back,
        open_bytes=statistics.open_bytes,
        queued=statistics.queued,
        running=statistics.running,
        stranded=statistics.stranded,
        batches_by_items={stage: dict(sizes) for stage, sizes in statistics.batch_sizes.items()},
        out_of_memory=statistics.out_of_memory,
        deaths=statistics.deaths,
        broken=statistics.broken,
        quarantine=statistics.quarantine,
    )


def _load(name: str, device: DeviceStatistics) -> LoadView:
    learnt = []
    for key in sorted(device.costs.keys() | device.caps.keys()):
        (stage, group), cost = key, device.costs.get(key)
        learnt.append(
            CostView(
                stage=stage,
                group=group,
                batches=cost.batches if cost else 0,
                seconds_by_items=dict(cost.seconds_by_size) if cost else {},
                p99_s=cost.p99_s if cost else None,
                most_items=device.caps.get(key),
            )
        )
    return LoadView(
        name=name,
        up=device.up,
        reason=device.reason,
        last_failure=device.last_failure,
        queued=dict(device.queued),
        queued_s=device.queued_s,
        in_flight=device.in_flight,
        batches=device.batches,
        steals=device.steals,
        learnt=tuple(learnt),
    )
