"""Fills in what `Scheduler.statistics()` answers: the records that a status shows, as things stand at one moment."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from imgdiffd.pipeline import LaneKey, Stage
from imgdiffd.schedulers.board import Board
from imgdiffd.schedulers.devices import Device
from imgdiffd.schedulers.dispatch import Dispatcher
from imgdiffd.schedulers.reasons import AdmissionCode, Reason, RecoveryCode
from imgdiffd.schedulers.recovery import Failure
from imgdiffd.status import CostView, LoadView, SchedulerView


def statistics_of(
    board: Board,
    dispatcher: Dispatcher,
    *,
    now_s: float,
    failures: Mapping[Failure, int],
    recoveries: Mapping[StrEnum, int],
    held_back: tuple[str, ...],
    admission: Reason,
) -> SchedulerView:
    """The whole scheduler. `held_back` says why nothing is sent; it is empty while batches are."""
    learnt = board.costs.learnt()
    devices = tuple(
        _load(device, board, learnt.get(device.name, {}), now_s, held_back) for device in board.devices.values()
    )
    return SchedulerView(
        devices=devices,
        admission=admission.text,
        admission_code=admission.code,
        held_back=held_back,
        open=len(board.held),
        open_bytes=board.open_bytes,
        queued=board.queued,
        running=sum(device.running_items for device in devices),
        stranded=len(board.stranded),
        steals=sum(device.steals for device in devices),
        batches_by_items={stage: dict(sizes) for stage, sizes in dispatcher.batch_sizes.items() if sizes},
        batches_by_reason={code.value: number for code, number in dispatcher.batch_reasons.items()},
        out_of_memory=failures[Failure.OUT_OF_MEMORY],
        deaths=failures[Failure.DIED],
        broken=failures[Failure.BROKEN],
        recoveries={code.value: number for code, number in recoveries.items()},
        quarantined=recoveries.get(RecoveryCode.QUARANTINED, 0),
    )


def _load(
    device: Device, board: Board, learnt: Mapping[LaneKey, CostView], now_s: float, held_back: tuple[str, ...]
) -> LoadView:
    queued: Counter[Stage] = Counter()
    for (stage, _), lane in device.queue.lanes.items():
        queued[stage] += len(lane)
    for part in device.queue.suspects:
        queued[part.key[0]] += len(part.entries)
    idle = held_back and device.up and not device.in_flight
    reason = Reason(AdmissionCode.HELD_BACK, ", ".join(held_back)) if idle else device.reason
    return LoadView(
        name=device.name,
        up=device.up,
        reason=reason.text,
        reason_code=reason.code,
        last_failure=device.last_failure,
        queued=dict(queued),
        queued_s=device.queued_seconds(board.costs, board.limits),
        in_flight=len(device.in_flight),
        running_items=sum(len(sent.entries) for sent in device.in_flight),
        busy_s=device.busy_seconds(now_s),
        batches=device.batches,
        steals=device.steals,
        learnt=_learnt(learnt, board.limits.caps(device.name)),
    )


def _learnt(costs: Mapping[LaneKey, CostView], caps: Mapping[LaneKey, int]) -> tuple[CostView, ...]:
    """What was measured and how many items fit, by stage and group; one may be known without the other."""
    found = []
    for stage, group in sorted(costs.keys() | caps.keys()):
        cost = costs.get((stage, group)) or CostView(stage=stage, group=group, batches=0)
        found.append(cost.model_copy(update={"most_items": caps.get((stage, group))}))
    return tuple(found)
