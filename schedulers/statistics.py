"""What `Scheduler.statistics()` answers: a frozen image of one moment.

It owns the records and how they are filled in; it changes nothing.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from imgdiffd.pipeline import LaneKey, Stage
from imgdiffd.schedulers.board import Board
from imgdiffd.schedulers.costs import Costs, StageCost
from imgdiffd.schedulers.devices import Device
from imgdiffd.schedulers.limits import BatchLimits
from imgdiffd.schedulers.recovery import Failure


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """One device. `reason` is its last decision's: why it took that batch, or why it takes none.

    `last_failure` is the last batch that failed there and what became of it; empty where none did.
    """

    up: bool
    queued: Mapping[Stage, int]
    queued_s: float
    in_flight: int
    running_items: int
    busy_s: float
    batches: int
    steals: int
    caps: Mapping[LaneKey, int]  # batch sizes learnt from running out of memory, by stage and shape
    costs: Mapping[LaneKey, StageCost]
    reason: str
    last_failure: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """The whole scheduler. `stranded` tasks wait for a device that has their models."""

    devices: Mapping[str, DeviceStatistics]
    open: int
    open_bytes: int
    queued: int
    running: int
    stranded: int
    batch_sizes: Mapping[Stage, Mapping[int, int]]  # how many batches of each size were sent
    steals: int
    out_of_memory: int
    deaths: int
    broken: int  # batches whose stage raised
    quarantine: int
    held_back: tuple[str, ...]  # why nothing is dispatched; empty while it is
    admission: str  # the reason of the last admission


def _device_statistics(
    device: Device,
    costs: Costs,
    learnt: Mapping[LaneKey, StageCost],
    limits: BatchLimits,
    now_s: float,
    held_back: tuple[str, ...],
) -> DeviceStatistics:
    queued: Counter[Stage] = Counter()
    for (stage, _), lane in device.queue.lanes.items():
        queued[stage] += len(lane)
    for part in device.queue.suspects:
        queued[part.key[0]] += len(part.entries)
    return DeviceStatistics(
        up=device.up,
        queued=queued,
        queued_s=device.queued_seconds(costs, limits),
        in_flight=len(device.flights),
        running_items=sum(len(flight.entries) for flight in device.flights),
        busy_s=device.busy_seconds(now_s),
        batches=device.batches,
        steals=device.steals,
        caps=limits.caps(device.name),
        costs=learnt,
        reason=", ".join(held_back) if held_back and device.up and not device.flights else device.reason,
        last_failure=device.last_failure,
    )


def statistics_of(
    board: Board,
    batch_sizes: Mapping[Stage, Mapping[int, int]],
    *,
    now_s: float,
    failures: Mapping[Failure, int],
    quarantine: int,
    held_back: tuple[str, ...],
    admission: str,
) -> Statistics:
    """The image of this moment."""
    devices = board.devices.values()
    learnt = board.costs.learnt()
    return Statistics(
        devices={
            device.name: _device_statistics(
                device, board.costs, learnt.get(device.name, {}), board.limits, now_s, held_back
            )
            for device in devices
        },
        open=len(board.held),
        open_bytes=board.open_bytes,
        queued=board.queued,
        running=sum(len(flight.entries) for device in devices for flight in device.flights),
        stranded=len(board.stranded),
        batch_sizes={stage: dict(sizes) for stage, sizes in batch_sizes.items() if sizes},
        steals=sum(device.steals for device in devices),
        out_of_memory=failures[Failure.OUT_OF_MEMORY],
        deaths=failures[Failure.DIED],
        broken=failures[Failure.BROKEN],
        quarantine=quarantine,
        held_back=held_back,
        admission=admission,
    )
