"""The worker process of one device: reads batches from its pipe, has an engine run them, and answers.

Heavy libraries are imported only once it is talking, so that the daemon sees it alive while they load.
"""

import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from imgdiffd import __version__, heap
from imgdiffd.errors import ImgdiffdError, first_line
from imgdiffd.fleet.wire import (
    HEADER_BYTES,
    Done,
    FromWorker,
    Loading,
    Pulse,
    Ready,
    Report,
    RunBatch,
    Start,
    ToWorker,
    UseProfile,
    body_length,
    pack_from_worker,
    unpack_to_worker,
)
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Stage
from imgdiffd.worker.answers import Answers, end, failed
from imgdiffd.worker.faults import Fault, sort_of_fault

PULSE_S = 2.0
GIVE_BACK_S = 30.0  # between two times that unused memory is given back amid batches, which takes some milliseconds
IDLE_S = 5.0  # without a batch, after which it is given back too
EXIT_PROTOCOL = 76  # EX_PROTOCOL: the daemon sent something that this process cannot make sense of

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_PACKAGES = ("torch", "diffusers", "transformers", "ultralytics")


class Engine(Protocol):
    """What `serve` runs: resident models behind one call."""

    @property
    def weights_bytes(self) -> dict[str, int]:
        """The device memory that each role's weights take."""

    @property
    def models(self) -> dict[str, str]:
        """Role to source and revision."""

    def run(self, stage: Stage, profile: Profile, inputs: Sequence[StageInput]) -> tuple[StageOutput, ...]:
        """One output for each input, in their order. Raises whatever the stage raises."""

    def take_writes(self) -> Callable[[], None]:
        """What makes the images of the last run durable: called once, in another thread. Raises OSError."""

    def report(self) -> Report:
        """What happened since the last call."""

    def free_memory(self) -> None:
        """Return cached memory, after a batch that did not fit."""


OpenEngine = Callable[[Start, Callable[[str], None]], Engine]


class _Link:
    """This process's ends of its two pipes. One thread receives; any may send."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = os.fdopen(incoming, "rb")
        self._outgoing = outgoing
        self._sending = threading.Lock()

    def receive(self) -> ToWorker | None:
        """The next message, or None once the daemon has closed its end. Raises ValueError on a broken frame."""
        header = self._incoming.read(HEADER_BYTES)
        if not header:
            return None
        length = body_length(header)
        body = self._incoming.read(length)
        if len(body) < length:
            raise ValueError(f"the stream ended {length - len(body)} bytes short of a frame")
        return unpack_to_worker(body)

    def send(self, message: FromWorker) -> None:
        """Write one whole frame. If the daemon no longer reads, nobody needs this process, and it ends."""
        rest = memoryview(pack_from_worker(message))
        with self._sending:
            try:
                while rest:
                    rest = rest[os.write(self._outgoing, rest) :]
            except BrokenPipeError:
                os._exit(0)


def _take_over_pipes() -> _Link:
    """Take over descriptors 0 and 1 for frames alone; what a library prints goes to stderr instead."""
    link = _Link(os.dup(0), os.dup(1))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return link


def _die_with_parent() -> None:
    """Have the kernel kill this process with the thread that started it; end now if that one is already gone."""
    parent = os.getppid()
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


class _Server:
    """A thread that reads, one that sends the pulse, one that answers, and the loop over batches in the main thread."""

    def __init__(self, link: _Link, pulse_s: float) -> None:
        self._link = link
        self._pulse_s = pulse_s
        self._profiles: dict[int, Profile] = {}
        self._batches: queue.Queue[tuple[RunBatch, Profile] | None] = queue.Queue()
        self._serving = False
        self._closed = False
        self._batch: int | None = None

    def run(self, open_engine: OpenEngine) -> int:
        start = self._link.receive()
        if start is None:
            return 0
        if not isinstance(start, Start):
            raise ValueError(f"the first message was {start.kind}, not start")
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        engine = open_engine(start, lambda what: self._link.send(Loading(what)))
        self._serving = True
        found = {"imgdiffd": __version__, **versions(_PACKAGES)}
        self._link.send(Ready(os.getpid(), engine.models, engine.weights_bytes, engine.report().notes, found))
        answers = Answers(self._link.send)
        gave_back_s = time.monotonic()
        while (todo := self._next_batch()) is not None and not self._closed:
            batch, profile = todo
            self._batch = batch.id
            self._link.send(Pulse(batch.id))  # if the process dies from now on, this batch may be the cause
            _run(engine, batch, profile, answers)
            self._batch = None
            del todo, batch
            if time.monotonic() - gave_back_s >= GIVE_BACK_S:
                heap.give_back()
                gave_back_s = time.monotonic()
        answers.close()
        return 0

    def _next_batch(self) -> tuple[RunBatch, Profile] | None:
        """The next batch, or None at the end; memory is given back once none has come for IDLE_S."""
        with suppress(queue.Empty):
            return self._batches.get(timeout=IDLE_S)
        heap.give_back()
        return self._batches.get()

    def _read(self) -> None:
        try:
            while (message := self._link.receive()) is not None:
                self._take(message)
        except ValueError as error:
            end(EXIT_PROTOCOL, f"broken message from the daemon: {first_line(error)}")
        if not self._serving:
            os._exit(0)
        self._closed = True
        self._batches.put(None)

    def _take(self, message: ToWorker) -> None:
        if isinstance(message, UseProfile):
            self._profiles[message.slot] = message.profile
        elif isinstance(message, Start):
            raise ValueError("a second start")
        elif (profile := self._profiles.get(message.profile)) is None:
            raise ValueError(f"batch {message.id} names profile {message.profile}, which was never sent")
        else:  # with the profile itself, since its slot may be used again before the batch is run
            self._batches.put((message, profile))

    def _pulse(self) -> None:
        while True:
            self._link.send(Pulse(self._batch))
            time.sleep(self._pulse_s)


def _run(engine: Engine, batch: RunBatch, profile: Profile, answers: Answers) -> None:
    """Run one batch and have it answered once its images are durable, while the next one runs."""
    began = time.perf_counter()
    try:
        outputs = engine.run(batch.stage, profile, batch.inputs)
        seconds, report = time.perf_counter() - began, engine.report()
        done = Done(batch.id, outputs, seconds, report.peak_bytes, report.counters, report.notes)
        answers.put(done, engine.take_writes())
        return
    except Exception as error:
        if sort_of_fault(error) is Fault.POISONED:
            answers.close()  # those of earlier batches
        answer = failed(batch.id, error)
    # Only here, outside the handler, are the frames of the traceback gone, and with them the tensors that they held.
    if answer.out_of_memory:
        engine.free_memory()
    answers.put(answer)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package, for provenance; those that are not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def serve(open_engine: OpenEngine, *, pulse_s: float = PULSE_S) -> int:
    """Be a worker until the daemon closes the pipe; returns the exit status.

    The batch under way is finished, and it and the one before it are answered; those queued behind are dropped. Where
    the engine cannot be opened, its error is the last line on stderr and gives the exit status.
    """
    link = _take_over_pipes()
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which stops its workers in order
    try:
        return _Server(link, pulse_s).run(open_engine)
    except ImgdiffdError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_status
    except Exception as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
