"""One worker process from its start to its end: its pipes, its batches in flight, and why it ended."""

import itertools
import logging
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Sequence

import anyio
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from imgdiffd.errors import WorkerDiedError, first_line
from imgdiffd.fleet.in_flight import Call, ProfileSlots, answer_of
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
    UseProfile,
    body_length,
    pack_to_worker,
    unpack_from_worker,
)
from imgdiffd.method.messages import StageInput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Stage

IN_FLIGHT = 2  # one running, one already in the pipe or having its images written: the device never waits for either
STDERR_LINES = 20
_LINE_CHARACTERS = 4096
_EXIT_WAIT_S = 5.0
_DRAIN_WAIT_S = 1.0
_TICK_S = 0.5


class WorkerProcess:
    """One process of device `name`. Calls belong to it, so that an answer never comes from another generation.

    `opened` is the running process, whose three streams are pipes.
    """

    def __init__(self, name: str, opened: Process, pulse_timeout_s: float, load_timeout_s: float) -> None:
        self.name = name
        self.pid = opened.pid
        self.ready: Ready | None = None
        self.settled = anyio.Event()  # ready, or ended
        self.ended = anyio.Event()
        self.last_pulse: float | None = None
        self._process = opened
        self._calls: deque[Call] = deque()
        self._calls_changed = anyio.Event()  # replaced at every change
        self._batch_ids = itertools.count(1)
        self._slots = ProfileSlots()
        self._stderr_tail: deque[str] = deque(maxlen=STDERR_LINES)
        self._stopping = False
        self._killed_because: str | None = None
        self._quiet_s = 0.0
        self._pulse_timeout_s = pulse_timeout_s
        self._load_timeout_s = load_timeout_s
        self._sending = anyio.Lock()
        self._log = logging.getLogger(f"imgdiffd.fleet.device.{name}")

    @property
    def alive(self) -> bool:
        """Whether it is ready and may be given a batch."""
        doomed = self._stopping or self._killed_because is not None
        return self.ready is not None and not doomed and not self.ended.is_set()

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def exit_reason(self) -> str:
        """How it ended, with the last line that it wrote to stderr."""
        status = self.exit_status
        if self._killed_because is not None and (status is None or status < 0):
            how = f"was killed because {self._killed_because}"
        elif status is not None and status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            if status == -signal.SIGKILL:
                how += ", as the kernel does when memory runs out"
        elif status == EXIT_POISONED:
            how = "ended because its device faulted"
        else:
            how = f"ended with status {status}"
        return f"{how}; it last said: {self._stderr_tail[-1]}" if self._stderr_tail else how

    async def send(self, *messages: ToWorker) -> None:
        """Write whole frames, even if cancelled. A broken pipe is no error here: `attend` sees the process end."""
        assert self._process.stdin is not None
        with anyio.CancelScope(shield=True):
            try:
                await self._process.stdin.send(b"".join(map(pack_to_worker, messages)))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._log.debug("the pipe to the worker is closed")

    async def submit(self, stage: Stage, profile: Profile, inputs: Sequence[StageInput], deadline_s: float) -> Call:
        """Send a batch once fewer than IN_FLIGHT are in flight. Raises WorkerDiedError if the process ends first."""
        async with self._sending:
            while len(self._calls) >= IN_FLIGHT and not self.ended.is_set():
                await self._calls_changed.wait()
            if not self.alive:
                raise self._death(stage, inputs, begun=False)
            slot, known = self._slots.use(profile)
            batch = RunBatch(next(self._batch_ids), stage, slot, tuple(inputs))
            call = Call(batch, deadline_s)
            self._calls.append(call)
            await self.send(*(() if known else (UseProfile(slot, profile),)), batch)
        return call

    async def ask_to_end(self) -> None:
        """Close its pipe: it answers the batch under way, drops the one behind it and ends."""
        self._stopping = True
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    def kill(self, because: str) -> None:
        """Kill it and whatever it started; the first reason is kept. Does nothing if it has ended."""
        if self._process.returncode is None:
            self._killed_because = self._killed_because or because
            self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)  # it leads a session of its own, compilers included
        except ProcessLookupError:
            self._log.debug("process %d was already gone", self.pid)

    async def attend(self, on_loading: Callable[[str], None]) -> None:
        """Read everything that the worker says until it ends; then fail the batches that it left unanswered."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            async with anyio.create_task_group() as tasks:
                drained = anyio.Event()
                tasks.start_soon(self._relay_stderr, self._process.stderr, drained)
                with anyio.CancelScope() as reading:
                    tasks.start_soon(self._watch, reading)
                    await self._read(BufferedByteReceiveStream(self._process.stdout), on_loading)
                with anyio.move_on_after(_EXIT_WAIT_S):
                    await self._process.wait()
                with anyio.move_on_after(_DRAIN_WAIT_S):  # a process that it started may hold stderr open
                    await drained.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                self.kill("it closed its pipe without ending")
                await self._process.wait()
                await self._process.aclose()
            self.ended.set()
            for call in self._calls:
                begun = call.begun and not self._stopping
                call.resolve(self._death(call.batch.stage, call.batch.inputs, begun=begun))
            self._calls.clear()
            self.settled.set()
            self._note_change()

    async def _read(self, stream: BufferedByteReceiveStream, on_loading: Callable[[str], None]) -> None:
        while True:
            try:
                header = await stream.receive_exactly(HEADER_BYTES)
                message = unpack_from_worker(await stream.receive_exactly(body_length(header)))
                self._take(message, on_loading)
            except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return
            except ValueError as error:
                self.kill(f"it broke the protocol: {first_line(error)}")
                return

    def _take(self, message: FromWorker, on_loading: Callable[[str], None]) -> None:
        self._quiet_s = 0.0
        self.last_pulse = anyio.current_time()
        match message:
            case Pulse():
                for call in self._calls:  # the first one's images may be being written while the second runs
                    call.begun = call.begun or call.batch.id == message.batch
            case Loading():
                on_loading(message.what)
            case Ready():
                self.ready = message
                self.settled.set()
            case Done() | Failed():
                if not self._calls or message.batch != self._calls[0].batch.id:
                    raise ValueError(f"it answered batch {message.batch}, which it was not running")
                answer = answer_of(self._calls[0], message, self.name)
                if isinstance(message, Failed):
                    self._log.warning("batch %d failed: %s", message.batch, message.detail)
                self._calls.popleft().resolve(answer)
                self._note_change()

    def _note_change(self) -> None:
        self._calls_changed.set()
        self._calls_changed = anyio.Event()

    async def _watch(self, reading: anyio.CancelScope) -> None:
        """Kill a silent or overdue worker. Cancel `reading` once it has ended, since others may hold its pipes open.

        Time is counted in ticks, so that a daemon that was itself held up blames nobody.
        """
        tick_s = min(_TICK_S, self._pulse_timeout_s / 4)
        while True:
            await anyio.sleep(tick_s)
            if self._process.returncode is not None:
                self._kill_group()
                await anyio.sleep(tick_s)  # for what it wrote last
                reading.cancel()
                return
            self._quiet_s += tick_s
            limit_s = self._load_timeout_s if self.ready is None else self._pulse_timeout_s
            if self._quiet_s >= limit_s:
                self.kill(f"it gave no sign of life for {limit_s:g} s")
            if self._calls:
                call = self._calls[0]
                call.worked_s += tick_s
                if call.worked_s >= call.deadline_s:
                    self.kill(f"{call.batch.stage} did not end within {call.deadline_s:g} s")

    async def _relay_stderr(self, stream: ByteReceiveStream, drained: anyio.Event) -> None:
        rest = ""
        try:
            async for chunk in stream:
                *lines, rest = re.split(r"[\r\n]+", rest + chunk.decode("utf-8", "replace"))
                for line in lines:
                    self._note_line(line)
                rest = rest[-_LINE_CHARACTERS:]
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._log.debug("stderr of the worker broke off")
        self._note_line(rest)
        drained.set()

    def _note_line(self, line: str) -> None:
        if line.strip():
            self._stderr_tail.append(line[:_LINE_CHARACTERS])
            self._log.info("%s", line[:_LINE_CHARACTERS])

    def _death(self, stage: Stage, inputs: Sequence[StageInput], *, begun: bool) -> WorkerDiedError:
        """The error for a batch that this process will not answer."""
        error = WorkerDiedError(
            f"device {self.name}: worker {self.pid} {self.exit_reason}",
            device=self.name,
            stage=stage,
            items=tuple(entry.item for entry in inputs),
            hint="another one is started and the batch is tried again",
        )
        error.begun = begun
        return error
