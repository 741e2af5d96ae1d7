"""What passes between the daemon and a worker process: small frozen frames, a length and then JSON.

It owns the wire format; it does not know pipes, models or SQL, nor what the stages ask and answer (`method.messages`).
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Stage
from imgdiffd.settings import AttentionChoice


@dataclass(frozen=True, slots=True)
class Start:
    """The first frame to a child: what to load and where images live. `threads` 0 leaves torch's own choice.

    `compile_cache` is the folder in which compiled kernels outlive the process; empty: none.
    """

    bundle: str
    device: str
    roles: tuple[str, ...]
    images: str
    threads: int = 0
    compile: bool = False
    attention: AttentionChoice = "auto"
    compile_cache: str = ""
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Items of one stage under one profile; `id` comes back with the answer."""

    id: int
    stage: Stage
    profile: Profile
    inputs: tuple[StageInput, ...]
    kind: Literal["batch"] = "batch"


@dataclass(frozen=True, slots=True)
class Loading:
    """Says that start-up goes on, and with what."""

    what: str
    kind: Literal["loading"] = "loading"


@dataclass(frozen=True, slots=True)
class Ready:
    """Every role is resident. `models` maps role to the source and revision, for provenance.

    `weights_bytes` is the device memory that each role took when it was loaded. `notes` are sentences for people:
    what this worker does otherwise than it was told, such as running uncompiled.
    """

    pid: int
    models: dict[str, str] = field(default_factory=dict)
    weights_bytes: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Pulse:
    """Sent every few seconds from a side thread: the process lives. `batch` is what it works on."""

    batch: int | None
    kind: Literal["pulse"] = "pulse"


@dataclass(frozen=True, slots=True)
class Done:
    """`outputs` are in the order of the batch's inputs; `seconds` is the stage function's own time.

    `peak_bytes` is the most device memory that was taken beyond the resident models while the batch ran; 0 where the
    device does not tell. `counters` says how often something rare was done in this batch; `notes` as in Ready, new ones
    only.
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
    """What an engine says beside its outputs; the fields are those of Done, for what ran since the last report."""

    peak_bytes: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The stage raised. `out_of_memory` invites a smaller batch, `disk_full` another try; `detail` is the traceback."""

    batch: int
    out_of_memory: bool
    error: str
    detail: str
    disk_full: bool = False
    kind: Literal["failed"] = "failed"


ToWorker = Annotated[Start | RunBatch, Field(discriminator="kind")]
FromWorker = Annotated[Loading | Ready | Pulse | Done | Failed, Field(discriminator="kind")]

EXIT_POISONED = 71  # EX_OSERR: a worker's status after a device fault that only a new process can clear

HEADER_BYTES = 4
MAX_FRAME_BYTES = 256 * 1024 * 1024  # larger can only be a broken stream

_to_worker: TypeAdapter[ToWorker] = TypeAdapter(ToWorker)
_from_worker: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """The length in bytes that a frame's header announces. Raises ValueError where it cannot be one."""
    length = int.from_bytes(header, "big")
    if len(header) != HEADER_BYTES or not 0 < length <= MAX_FRAME_BYTES:
        raise ValueError(f"frame header {header!r} announces {length} bytes")
    return length


def pack_to_worker(message: ToWorker) -> bytes:
    """One frame: a big-endian length, then JSON."""
    return _frame(_to_worker.dump_json(message))


def unpack_to_worker(body: bytes) -> ToWorker:
    """The message of one frame's body. Raises ValueError where it is not one."""
    return _to_worker.validate_json(body)


def pack_from_worker(message: FromWorker) -> bytes:
    """One frame: a big-endian length, then JSON."""
    return _frame(_from_worker.dump_json(message))


def unpack_from_worker(body: bytes) -> FromWorker:
    """The message of one frame's body. Raises ValueError where it is not one."""
    return _from_worker.validate_json(body)
