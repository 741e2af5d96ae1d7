"""Decides what becomes of the tasks of a failed batch: smaller batches, halves kept apart, or a crash counted."""

from dataclasses import dataclass, replace
from enum import Enum, auto

from imgdiffd.errors import NoRoomError, OutOfMemoryError, WorkerDiedError, WorkError
from imgdiffd.pipeline import Task
from imgdiffd.schedulers.reasons import Reason, RecoveryCode


class Failure(Enum):
    """How a batch failed, as far as it matters for what to do next."""

    OUT_OF_MEMORY = auto()
    BROKEN = auto()  # the stage raised; the worker lives
    DIED = auto()  # the worker ended while it worked on this batch, or may have
    NOT_BEGUN = auto()  # not the batch's doing: the worker ended before its turn, or the disk had no room


def failure_of(error: WorkError) -> Failure:
    """The kind of failure that an error stands for."""
    if isinstance(error, OutOfMemoryError):
        return Failure.OUT_OF_MEMORY
    if isinstance(error, WorkerDiedError):
        return Failure.DIED if error.begun else Failure.NOT_BEGUN
    if isinstance(error, NoRoomError):
        return Failure.NOT_BEGUN
    return Failure.BROKEN


@dataclass(frozen=True, slots=True)
class Recovery:
    """Every task of the failed batch stands in exactly one of `again`, `apart` and `given_up`.

    `again` may be batched with others; each tuple of `apart` is retried on its own, with nothing else on the device.
    `charged` repeats, with its new count, the task that crashed alone.
    """

    reason: Reason
    again: tuple[Task, ...] = ()
    apart: tuple[tuple[Task, ...], ...] = ()
    charged: Task | None = None
    given_up: Task | None = None


def recover(tasks: tuple[Task, ...], failure: Failure, *, alone: bool, suspect: bool, max_crashes: int) -> Recovery:
    """What to do with the tasks of a failed batch.

    `alone`: no other batch was on the device with this one, so a death is this one's. `suspect`: it was itself a part
    of a failed batch. Halving finds one culprit among n in log2(n) steps, and only the culprit is ever charged.
    """
    if failure is Failure.NOT_BEGUN:
        why = Reason(RecoveryCode.NOT_ITS_DOING, "it is not to blame: again as it was")
        return Recovery(why, apart=(tasks,)) if suspect else Recovery(why, again=tasks)
    if len(tasks) > 1:
        if failure is Failure.OUT_OF_MEMORY and not suspect:
            text = f"{len(tasks)} did not fit: again in smaller batches"
            return Recovery(Reason(RecoveryCode.SMALLER, text), again=tasks)
        middle = (len(tasks) + 1) // 2
        text = f"one of {len(tasks)} may be the cause: again in halves"
        return Recovery(Reason(RecoveryCode.HALVES, text), apart=(tasks[:middle], tasks[middle:]))
    if failure is Failure.DIED and not alone:
        text = "another batch was on the device too: again, alone"
        return Recovery(Reason(RecoveryCode.ALONE, text), apart=(tasks,))
    charged = replace(tasks[0], crashes=tasks[0].crashes + 1)
    if charged.crashes >= max_crashes:
        why = Reason(RecoveryCode.QUARANTINED, f"{charged.crashes} crashes alone: quarantined")
        return Recovery(why, charged=charged, given_up=charged)
    why = Reason(RecoveryCode.CRASHED, f"crash {charged.crashes} of {max_crashes}: again")
    return Recovery(why, apart=((charged,),), charged=charged)
