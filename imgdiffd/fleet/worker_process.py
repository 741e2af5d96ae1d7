"""One worker process from birth to death: its frames, its last words, and the batches it left unanswered.

It owns the pipes and the calls in flight of a single child; it does not know how a child is started or when it is
replaced.
"""

import logging
import os
import re
import signal
from collections import deque
from collections.abc import Callable

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from imgdiffd.errors import NoRoomError, OutOfMemoryError, StageError, WorkerDiedError, WorkError
from imgdiffd.fleet.wire import (
    EXIT_POISONED,
    HEADER_BYTES,
    Done,
    Failed,
    FromWorker,
    Loading,
    Pulse,
    Ready,
    RunBatch,
    ToWorker,
    body_length,
    pack_to_worker,
    unpack_from_worker,
)

IN_FLIGHT = 2  # one running, one already in the pipe, so that the device never waits for the daemon
LAST_WORDS = 20
_LINE_CHARACTERS = 4096
_EXIT_WAIT_S = 5.0
_DRAIN_WAIT_S = 1.0
_TICK_S = 0.5
# What a failed frame's two flags stand for: the error, and what to do.
_MEANING: dict[tuple[bool, bool], tuple[type[StageError] | type[OutOfMemoryError], str]] = {
    (False, False): (StageError, "the traceback is in the daemon's log"),
    (False, True): (NoRoomError, "it is tried again when there is room"),
    (True, False): (OutOfMemoryError, "try a smaller batch"),
    (True, True): (OutOfMemoryError, "try a smaller batch"),
}


class Call:
    """One batch in flight. `answer` is set once, with `answered`."""

    def __init__(self, batch: RunBatch, deadline_s: float) -> None:
        self.batch = batch
        self.deadline_s = deadline_s
        self.begun = False  # the child said that it works on it
        self.worked_s = 0.0  # since it was the oldest in flight
        self.answer: Done | WorkError | None = None
        self.answered = anyio.Event()

    @property
    def items(self) -> tuple[int, ...]:
        """Its items, in order."""
        return tuple(entry.item for entry in self.batch.inputs)

    def resolve(self, answer: Done | WorkError) -> None:
        """Give it its answer; only the first counts."""
        if self.answer is None:
            self.answer = answer
            self.answered.set()


class WorkerProcess:
    """One process from birth to death. Calls belong to it, so an answer can never come from another generation."""

    def __init__(self, name: str, process: Process, pulse_timeout_s: float, load_timeout_s: float) -> None:
        self.name = name
        self.process = process
        self.ready: Ready | None = None
        self.settled = anyio.Event()  # ready, or ended
        self.ended = anyio.Event()
        self.changed = anyio.Event()  # replaced at every change of `calls`
        self.calls: deque[Call] = deque()
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self.last_pulse: float | None = None
        self.stopping = False
        self.cause: str | None = None
        self._quiet_s = 0.0
        self._pulse_timeout_s = pulse_timeout_s
        self._load_timeout_s = load_timeout_s
        self._sending = anyio.Lock()
        self._log = logging.getLogger(f"imgdiffd.fleet.device.{name}")

    async def send(self, message: ToWorker) -> None:
        """Write one whole frame. A broken pipe says nothing here: the attendant sees the end and fails the calls."""
        assert self.process.stdin is not None
        with anyio.CancelScope(shield=True):
            try:
                await self.process.stdin.send(pack_to_worker(message))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._log.debug("the pipe to the worker is closed")

    async def submit(self, batch: RunBatch, deadline_s: float) -> Call:
        """Queue a batch once fewer than IN_FLIGHT are. Raises WorkerDiedError where the child ended first."""
        async with self._sending:
            while len(self.calls) >= IN_FLIGHT and not self.ended.is_set():
                await self.changed.wait()
            if not self.alive:
                raise self.death(batch, begun=False)
            call = Call(batch, deadline_s)
            self.calls.append(call)
            await self.send(batch)
        return call

    def condemn(self, cause: str) -> None:
        """Kill the child and what it started, and remember why. Nothing happens to one that has ended."""
        if self.process.returncode is None:
            self.cause = self.cause or cause
            self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # it leads its own session, compilers included
        except ProcessLookupError:
            self._log.debug("process %d was already gone", self.process.pid)

    async def attend(self, on_loading: Callable[[str], None]) -> None:
        """Read everything that the child says until it ends; then fail what it left unanswered."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        try:
            async with anyio.create_task_group() as tasks:
                talking = anyio.Event()
                tasks.start_soon(self._relay, self.process.stderr, talking)
                with anyio.CancelScope() as reading:
                    tasks.start_soon(self._watch, reading)
                    await self._read(BufferedByteReceiveStream(self.process.stdout), on_loading)
                with anyio.move_on_after(_EXIT_WAIT_S):
                    await self.process.wait()
                with anyio.move_on_after(_DRAIN_WAIT_S):  # a grandchild may hold stderr open
                    await talking.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                self.condemn("it closed its pipe without ending")
                await self.process.wait()
                await self.process.aclose()
            self.ended.set()
            for call in self.calls:
                call.resolve(self.death(call.batch, begun=call.begun and not self.stopping))
            self.calls.clear()
            self.settled.set()
            self._note_change()

    async def _read(self, stream: BufferedByteReceiveStream, on_loading: Callable[[str], None]) -> None:
        while True:
            try:
                header = await stream.receive_exactly(HEADER_BYTES)
                frame = unpack_from_worker(await stream.receive_exactly(body_length(header)))
                self._take(frame, on_loading)
            except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            except ValueError as error:
                self.condemn(f"it broke the protocol: {str(error).splitlines()[0]}")
                return

    def _take(self, frame: FromWorker, on_loading: Callable[[str], None]) -> None:
        self._quiet_s = 0.0
        self.last_pulse = anyio.current_time()
        match frame:
            case Pulse():
                if self.calls and self.calls[0].batch.id == frame.batch:
                    self.calls[0].begun = True
            case Loading():
                on_loading(frame.what)
            case Ready():
                self.ready = frame
                self.settled.set()
            case Done() | Failed():
                self._settle(frame)

    def _settle(self, frame: Done | Failed) -> None:
        call = self.calls[0] if self.calls else None
        if call is None or frame.batch != call.batch.id:
            raise ValueError(f"an answer to batch {frame.batch}, which it was not working on")
        answer: Done | WorkError
        if isinstance(frame, Done):
            kinds = {output.kind for output in frame.outputs}
            if tuple(output.item for output in frame.outputs) != call.items or not kinds <= {call.batch.stage.value}:
                raise ValueError(f"the answer to batch {frame.batch} does not fit its {call.batch.stage} inputs")
            answer = frame
        else:
            self._log.warning("batch %d failed: %s", frame.batch, frame.detail)
            error, hint = _MEANING[frame.out_of_memory, frame.disk_full]
            where = f"device {self.name}: {call.batch.stage} of {len(call.items)} items"
            answer = error(
                f"{where}: {frame.error}",
                device=self.name,
                stage=call.batch.stage,
                items=call.items,
                hint=hint,
            )
        self.calls.popleft()
        call.resolve(answer)
        self._note_change()

    def _note_change(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def _watch(self, reading: anyio.CancelScope) -> None:
        """Kill a silent or overdue child; end `reading` of one that ended, since its own children may hold its pipes.

        Time is counted in ticks: a daemon that was itself held up blames nobody.
        """
        tick_s = min(_TICK_S, self._pulse_timeout_s / 4)
        while True:
            await anyio.sleep(tick_s)
            if self.process.returncode is not None:
                self._kill_group()
                await anyio.sleep(tick_s)  # for what it said last
                reading.cancel()
                return
            self._quiet_s += tick_s
            limit_s = self._load_timeout_s if self.ready is None else self._pulse_timeout_s
            if self._quiet_s >= limit_s:
                self.condemn(f"it gave no sign of life for {limit_s:g} s")
            if self.calls:
                call = self.calls[0]
                call.worked_s += tick_s
                if call.worked_s >= call.deadline_s:
                    self.condemn(f"{call.batch.stage} did not end within {call.deadline_s:g} s")

    async def _relay(self, stream: ByteReceiveStream, drained: anyio.Event) -> None:
        rest = ""
        try:
            async for chunk in stream:
                *lines, rest = re.split(r"[\r\n]+", rest + chunk.decode("utf-8", "replace"))
                for line in lines:
                    self._note_words(line)
                rest = rest[-_LINE_CHARACTERS:]
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._log.debug("stderr of the worker broke off")
        self._note_words(rest)
        drained.set()

    def _note_words(self, line: str) -> None:
        if line.strip():
            self.last_words.append(line[:_LINE_CHARACTERS])
            self._log.info("%s", line[:_LINE_CHARACTERS])

    @property
    def alive(self) -> bool:
        """Whether it is ready and nothing speaks against giving it a batch."""
        return self.ready is not None and self.cause is None and not self.stopping and not self.ended.is_set()

    def obituary(self) -> str:
        """How it ended, with its last line on stderr."""
        status = self.process.returncode
        if self.cause is not None and (status is None or status < 0):
            how = f"was killed because {self.cause}"
        elif status is not None and status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        elif status == EXIT_POISONED:
            how = "ended because its device faulted"
        else:
            how = f"ended with status {status}"
        return f"{how}; it last said: {self.last_words[-1]}" if self.last_words else how

    def death(self, batch: RunBatch, *, begun: bool) -> WorkerDiedError:
        """The error for a batch that this child will not answer."""
        error = WorkerDiedError(
            f"device {self.name}: worker {self.process.pid} {self.obituary()}",
            device=self.name,
            stage=batch.stage,
            items=tuple(entry.item for entry in batch.inputs),
            hint="another is started and the batch tried again",
        )
        error.begun = begun
        return error
