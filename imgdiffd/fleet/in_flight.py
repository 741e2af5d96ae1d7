"""A batch in flight, what its answer means, and which profiles a worker was already told."""

import anyio

from imgdiffd.errors import NoRoomError, OutOfMemoryError, StageError, WorkError
from imgdiffd.fleet.wire import PROFILE_SLOTS, Done, Failed, RunBatch
from imgdiffd.method.profile import Profile

# What the two flags of Failed stand for: the error, and what to do.
_MEANING: dict[tuple[bool, bool], tuple[type[StageError] | type[OutOfMemoryError], str]] = {
    (False, False): (StageError, "the traceback is in the daemon's log"),
    (False, True): (NoRoomError, "it is tried again when there is room"),
    (True, False): (OutOfMemoryError, "try a smaller batch"),
    (True, True): (OutOfMemoryError, "try a smaller batch"),
}


class Call:
    """One batch in flight. `answer` is set once, together with `answered`."""

    def __init__(self, batch: RunBatch, deadline_s: float) -> None:
        self.batch = batch
        self.deadline_s = deadline_s
        self.begun = False  # the worker said that it is running it
        self.worked_s = 0.0  # since it became the oldest in flight
        self.answer: Done | WorkError | None = None
        self.answered = anyio.Event()

    @property
    def items(self) -> tuple[int, ...]:
        """The ids of its items, in order."""
        return tuple(entry.item for entry in self.batch.inputs)

    def resolve(self, answer: Done | WorkError) -> None:
        """Give it its answer; only the first one counts."""
        if self.answer is None:
            self.answer = answer
            self.answered.set()


def answer_of(call: Call, message: Done | Failed, device: str) -> Done | WorkError:
    """What `message` means for the caller. Raises ValueError where its outputs do not fit the inputs of the batch."""
    stage = call.batch.stage
    if isinstance(message, Done):
        kinds = {output.kind for output in message.outputs}
        if tuple(output.item for output in message.outputs) != call.items or not kinds <= {stage.value}:
            raise ValueError(f"the answer to batch {message.batch} does not fit its {stage} inputs")
        return message
    error, hint = _MEANING[message.out_of_memory, message.disk_full]
    where = f"device {device}: {stage} of {len(call.items)} items"
    return error(f"{where}: {message.error}", device=device, stage=stage, items=call.items, hint=hint)


class ProfileSlots:
    """The profiles that one worker process was told, by slot: at most PROFILE_SLOTS, the last used at the end."""

    def __init__(self) -> None:
        self._told: dict[int, Profile] = {}

    def use(self, profile: Profile) -> tuple[int, bool]:
        """The slot of `profile`, and whether the worker knows it there.

        One that it does not know takes a free slot, else that of the profile whose last use is the longest ago.
        """
        slot = next((slot for slot, told in self._told.items() if told == profile), None)
        known = slot is not None
        if slot is None:
            slot = len(self._told) if len(self._told) < PROFILE_SLOTS else next(iter(self._told))
        self._told.pop(slot, None)
        self._told[slot] = profile
        return slot, known
