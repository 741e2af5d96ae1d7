"""Why something was decided: a code that a test or a metric can name, and a sentence for people."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` is a member of the enum of its kind of decision, below."""

    code: StrEnum
    text: str

    def __str__(self) -> str:
        return self.text


class AdmissionCode(StrEnum):
    """Why tasks are asked for, or none."""

    NOT_STARTED = "not_started"
    ROOM = "room"  # the only one that asks
    HELD_BACK = "held_back"  # paused or draining; the text says why
    ASKING = "asking"  # a refill is under way
    EXHAUSTED = "exhausted"  # the last refill found no more
    BOUND = "bound"  # as many tasks are open as may be
    LITTLE_ROOM = "little_room"  # not worth a query while tasks are queued
    BYTES = "bytes"  # open work takes the bytes that it may


class BatchCode(StrEnum):
    """Why a device takes a batch from its own deque, or none."""

    FULL = "full"
    DUE = "due"  # not full, but waiting longer does not pay
    SHARED = "shared"  # a part of the last tasks of their kind; other devices take the rest
    PASSED_OVER = "passed_over"  # other lanes went first too often
    RETRY = "retry"  # a part of a failed batch, with nothing beside it
    NOTHING_QUEUED = "nothing_queued"
    HOLDING = "holding"  # small batches may still fill
    NOT_ALONE = "not_alone"  # a part of a failed batch waits until nothing runs beside it


class TheftCode(StrEnum):
    """Why a device takes a batch from another's deque, or none."""

    STOLEN = "stolen"
    NO_VICTIM = "no_victim"  # no other device has work for its models
    NOT_DUE = "not_due"  # others hold small batches that may still fill
    DOES_NOT_PAY = "does_not_pay"  # the work is done sooner where it is


class SlotCode(StrEnum):
    """Why another batch is sent to a device, or not yet."""

    IDLE = "idle"
    AHEAD = "ahead"  # what runs there ends soon
    BUSY = "busy"  # what is there takes longer than batches are sent ahead
    BOUND = "bound"  # as many batches are in flight as may be
    RETRY = "retry"  # a part of a failed batch runs with nothing beside it


class RecoveryCode(StrEnum):
    """What becomes of a failed batch."""

    NOT_ITS_DOING = "not_its_doing"  # tried again as it was
    SMALLER = "smaller"  # did not fit: again in smaller batches
    HALVES = "halves"  # one of its items may be the cause
    ALONE = "alone"  # another batch may be the cause: again with nothing beside it
    CRASHED = "crashed"  # one item, alone: the crash is counted
    QUARANTINED = "quarantined"  # one item that crashed alone too often


class PlacementCode(StrEnum):
    """Why a role is on a device, or on none."""

    NEEDED = "needed"  # by every job; its place balances the load
    PAINTER = "painter"  # the heaviest stage: wherever it fits
    FILTERS = "filters"  # light, and spare a pair a hop to another device
    CAPTIONER = "captioner"  # the second heaviest stage: on half the devices
    SHARED = "shared"  # another role's model plays it, so it adds no weights
    OPTIONAL = "optional"  # where most room was left
    LIGHT = "light"  # beside the room that is left
    IDLE_HOURS = "idle_hours"  # object removal runs when nothing else does: wherever it fits
    NO_ROOM = "no_room"


class DeviceCode(StrEnum):
    """Where a device stands before its first decision."""

    NOT_READY = "not_ready"
    READY = "ready"
    DOWN = "down"
