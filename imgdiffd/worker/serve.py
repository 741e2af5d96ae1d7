"""The child process of one device: reads batches from its pipe, runs their stage, answers.

It owns the process's manners (frames, pulse, dying with its parent, telling faults apart) and loads the models; it
does not know items' states, other devices or the database. Heavy libraries are imported only once it is talking.
"""

import ctypes
import errno
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn, Protocol

from imgdiffd.errors import ImgdiffdError
from imgdiffd.fleet.wire import (
    EXIT_POISONED,
    HEADER_BYTES,
    Done,
    Failed,
    FromWorker,
    Loading,
    Pulse,
    Ready,
    Report,
    RunBatch,
    Start,
    ToWorker,
    body_length,
    pack_from_worker,
    unpack_to_worker,
)
from imgdiffd.method.messages import StageOutput

PULSE_S = 2.0
EXIT_PROTOCOL = 76  # EX_PROTOCOL: the parent sent something that is not a message

_PR_SET_PDEATHSIG = 1
_PACKAGES = ("imgdiffd", "torch", "diffusers", "transformers", "ultralytics")
_MEMORY_MARKERS = ("out of memory", "DefaultCPUAllocator", "can't allocate memory", "STATUS_ALLOC_FAILED")
# After these a CUDA context answers every call with the same error (CUDA runtime API, cudaError_t: "the process must
# be terminated and relaunched").
_FAULT_MARKERS = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "illegal address",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "CUDA error: unknown error",
)


class Fault(Enum):
    """What an exception of a stage says about the process."""

    MEMORY = "memory"  # a smaller batch may fit
    POISONED = "poisoned"  # only a new process helps
    DISK = "disk"  # what it made may be written later
    STAGE = "stage"  # the batch's own trouble


class Engine(Protocol):
    """What `serve` runs: resident models behind one call."""

    @property
    def weights_bytes(self) -> dict[str, int]:
        """The memory that each role's weights take."""

    @property
    def models(self) -> dict[str, str]:
        """Role to source and revision."""

    def run(self, batch: RunBatch) -> tuple[StageOutput, ...]:
        """One output per input, in their order. Raises whatever the stage raises."""

    def report(self) -> Report:
        """What happened since the last call."""

    def free_memory(self) -> None:
        """Give cached memory back, after a batch that did not fit."""


OpenEngine = Callable[[Start, Callable[[str], None]], Engine]


def sort_of_fault(error: BaseException) -> Fault:
    """Tell out of memory, a poisoned device and a full disk from an ordinary error, following the chain of causes."""
    link: BaseException | None = error
    while link is not None:
        text = str(link)
        if isinstance(link, RuntimeError) and any(marker in text for marker in _FAULT_MARKERS):
            return Fault.POISONED
        # torch.OutOfMemoryError is known by its name, so that this module needs no torch.
        if isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError":
            return Fault.MEMORY
        if isinstance(link, RuntimeError) and any(marker in text for marker in _MEMORY_MARKERS):
            return Fault.MEMORY
        if isinstance(link, OSError) and link.errno in {errno.ENOSPC, errno.EDQUOT}:
            return Fault.DISK
        link = link.__cause__ or link.__context__
    return Fault.STAGE


class _Link:
    """The child's two pipe ends. One thread receives; any may send."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = os.fdopen(incoming, "rb")
        self._outgoing = outgoing
        self._sending = threading.Lock()

    def receive(self) -> ToWorker | None:
        """The next message, or None once the parent has closed its end. Raises ValueError on a broken frame."""
        header = self._incoming.read(HEADER_BYTES)
        if not header:
            return None
        length = body_length(header)
        body = self._incoming.read(length)
        if len(body) < length:
            raise ValueError(f"the stream ended {length - len(body)} bytes short of a frame")
        return unpack_to_worker(body)

    def send(self, message: FromWorker) -> None:
        """Write one whole frame. Where the parent reads no more there is nobody to work for: the process ends."""
        rest = memoryview(pack_from_worker(message))
        with self._sending:
            try:
                while rest:
                    rest = rest[os.write(self._outgoing, rest) :]
            except BrokenPipeError:
                os._exit(0)


def _take_over_pipes() -> _Link:
    """Keep descriptors 0 and 1 for frames alone: what any library prints goes to the log instead."""
    link = _Link(os.dup(0), os.dup(1))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return link


def _die_with_parent() -> None:
    """Have the kernel kill this process with the thread that started it; end now if that is already gone."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _end(status: int, why: str) -> NoReturn:
    print(why, file=sys.stderr, flush=True)
    os._exit(status)


class _Server:
    """Reader thread, pulse thread, and the loop of batches in the main thread."""

    def __init__(self, link: _Link, pulse_s: float) -> None:
        self._link = link
        self._pulse_s = pulse_s
        self._batches: queue.Queue[RunBatch | None] = queue.Queue()
        self._serving = False
        self._closed = False
        self._batch: int | None = None

    def run(self, open_engine: OpenEngine) -> int:
        start = self._link.receive()
        if start is None:
            return 0
        if not isinstance(start, Start):
            raise ValueError(f"the first message was {start.kind}, wanted start")
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        engine = open_engine(start, lambda what: self._link.send(Loading(what)))
        self._serving = True
        self._link.send(
            Ready(os.getpid(), engine.models, engine.weights_bytes, engine.report().notes, versions(_PACKAGES))
        )
        while (batch := self._batches.get()) is not None and not self._closed:
            self._batch = batch.id
            self._link.send(Pulse(batch.id))  # from now on a death is this batch's
            answer = _answer(engine, batch)
            self._batch = None
            self._link.send(answer)
        return 0

    def _read(self) -> None:
        try:
            while (message := self._link.receive()) is not None:
                if not isinstance(message, RunBatch):
                    raise ValueError(f"a second {message.kind} message")
                self._batches.put(message)
        except ValueError as error:
            _end(EXIT_PROTOCOL, f"broken message from the daemon: {error}")
        if not self._serving:
            os._exit(0)
        self._closed = True
        self._batches.put(None)

    def _pulse(self) -> None:
        while True:
            self._link.send(Pulse(self._batch))
            time.sleep(self._pulse_s)


def _answer(engine: Engine, batch: RunBatch) -> Done | Failed:
    """Run one batch; a poisoned device ends the process, since every later batch would fail for this one's fault."""
    began = time.perf_counter()
    try:
        outputs = engine.run(batch)
        seconds, report = time.perf_counter() - began, engine.report()
        return Done(batch.id, outputs, seconds, report.peak_bytes, report.counters, report.notes)
    except Exception as error:
        detail = "".join(traceback.format_exception(error))
        fault = sort_of_fault(error)
        if fault is Fault.POISONED:
            _end(EXIT_POISONED, detail)
        first_line = (str(error).strip() or "no message").splitlines()[0]
        text = first_line if isinstance(error, ImgdiffdError) else f"{type(error).__name__}: {first_line}"
    # Only here, out of the handler, are the traceback's frames gone, and with them the tensors that they held.
    if fault is Fault.MEMORY:
        engine.free_memory()
    return Failed(batch.id, fault is Fault.MEMORY, text, detail, fault is Fault.DISK)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions by package, for provenance; what is not installed is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def serve(open_engine: OpenEngine, *, pulse_s: float = PULSE_S) -> int:
    """Be a worker until the parent closes the pipe; returns the exit status.

    The batch under way is finished and answered first, those queued behind it are dropped. An engine that cannot be
    opened gives its error as the last line on stderr, and its exit status.
    """
    link = _take_over_pipes()
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which stops its workers in order
    try:
        return _Server(link, pulse_s).run(open_engine)
    except ImgdiffdError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_status
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
