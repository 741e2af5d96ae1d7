"""What passes between the daemon and a worker process: small frozen messages, each framed as a length and JSON.

What the stages themselves ask and answer is in `method.messages`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Stage
from imgdiffd.settings import AttentionChoice

PROFILE_SLOTS = 8  # profiles that a worker keeps; jobs of more than that at once have theirs sent again


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a worker: what to load and where images are. `threads` 0 leaves the choice to torch.

    `compile_cache` is the folder in which compiled kernels outlive the process; where it is empty, they do not. With
    `tune`, kernels of matrix products are chosen by timing several.
    """

    bundle: str
    device: str
    roles: tuple[str, ...]
    images: str
    threads: int = 0
    compile: bool = False
    attention: AttentionChoice = "auto"
    compile_cache: str = ""
    tune: bool = False
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class UseProfile:
    """From now on batches mean this profile by `slot`, and no longer the one that was there before."""

    slot: Annotated[int, Field(ge=0, lt=PROFILE_SLOTS)]
    profile: Profile
    kind: Literal["profile"] = "profile"


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Items of one stage under the profile in slot `profile`; `id` comes back with the answer."""

    id: int
    stage: Stage
    profile: int
    inputs: tuple[StageInput, ...]
    kind: Literal["batch"] = "batch"


@dataclass(frozen=True, slots=True)
class Loading:
    """The worker is still starting, and this is what it is loading."""

    what: str
    kind: Literal["loading"] = "loading"


@dataclass(frozen=True, slots=True)
class Ready:
    """Every role is resident. `models` maps each role to its source and revision, for provenance.

    `weights_bytes` is the device memory that each role took when it was loaded. `notes` are sentences for people about
    what this worker does differently from what it was told, such as running uncompiled.
    """

    pid: int
    models: dict[str, str] = field(default_factory=dict)
    weights_bytes: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Pulse:
    """Sent every few seconds from a side thread: the process is alive. `batch` is the one that it is running."""

    batch: int | None
    kind: Literal["pulse"] = "pulse"


@dataclass(frozen=True, slots=True)
class Done:
    """`outputs` are in the order of the batch's inputs; `seconds` is the stage function's own time.

    `peak_bytes` is the most device memory that was in use beyond the resident models while the batch ran; 0 where the
    device does not tell. `counters` says how often something rare happened in this batch; `notes` is as in Ready, new
    ones only.
    """

    batch: int
    outputs: tuple[StageOutput, ...]
    seconds: float
    peak_bytes: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Report:
    """What an engine reports besides its outputs: the same fields as in Done, for what ran since the last report."""

    peak_bytes: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The stage raised `error`; `detail` is the traceback.

    `out_of_memory` asks for a smaller batch, `disk_full` for another try once there is room.
    """

    batch: int
    out_of_memory: bool
    error: str
    detail: str
    disk_full: bool = False
    kind: Literal["failed"] = "failed"


ToWorker = Annotated[Start | UseProfile | RunBatch, Field(discriminator="kind")]
FromWorker = Annotated[Loading | Ready | Pulse | Done | Failed, Field(discriminator="kind")]

EXIT_POISONED = 71  # EX_OSERR: the exit status after a device fault that only a new process can clear

HEADER_BYTES = 4
MAX_FRAME_BYTES = 256 * 1024 * 1024  # a larger one can only mean a broken stream

_to_worker: TypeAdapter[ToWorker] = TypeAdapter(ToWorker)
_from_worker: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """The length in bytes of the body that `header` announces. Raises ValueError where no body has that length."""
    length = int.from_bytes(header, "big")
    if len(header) != HEADER_BYTES or not 0 < length <= MAX_FRAME_BYTES:
        raise ValueError(f"the frame header {header!r} announces {length} bytes")
    return length


def pack_to_worker(message: ToWorker) -> bytes:
    """One frame: the length as four big-endian bytes, then the JSON of `message`."""
    return _frame(_to_worker.dump_json(message))


def unpack_to_worker(body: bytes) -> ToWorker:
    """The message in the body of a frame. Raises ValueError where there is none."""
    return _to_worker.validate_json(body)


def pack_from_worker(message: FromWorker) -> bytes:
    """One frame: the length as four big-endian bytes, then the JSON of `message`."""
    return _frame(_from_worker.dump_json(message))


def unpack_from_worker(body: bytes) -> FromWorker:
    """The message in the body of a frame. Raises ValueError where there is none."""
    return _from_worker.validate_json(body)
