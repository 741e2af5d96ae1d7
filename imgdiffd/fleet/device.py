"""The parent's side of one device: start its worker, send it batches, replace it, end it.

It owns which child is the present one and what it was told at its start; it does not know what a stage computes, what
becomes of a result, or when to try again.
"""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import anyio

from imgdiffd.errors import EXIT_CONFIGURATION, DeviceStartError, WorkerDiedError
from imgdiffd.fleet.wire import Done, Ready, RunBatch, Start
from imgdiffd.fleet.worker_process import WorkerProcess
from imgdiffd.method.messages import StageInput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Role, Stage

WORKER_COMMAND = (sys.executable, "-P", "-m", "imgdiffd.worker")
PULSE_TIMEOUT_S = 30.0
LOAD_TIMEOUT_S = 600.0  # of silence while loading: importing torch from a cold disk holds every thread
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as the driver's own tools and the placement number the cards
}

_log = logging.getLogger(__name__)


class DeviceProcess:
    """One device's worker, replaceable: `start` after a death makes the next generation.

    `on_loading` is told what is being loaded, `on_done` of every batch answered. `command` replaces the child (tests
    use `imgdiffd.testing.worker`), `environment` adds to what it inherits. Needs asyncio's loop: the child is attended
    by a task of its own, because at an ordered stop it outlives the task that started it.
    """

    def __init__(
        self,
        name: str,
        start: Start,
        *,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        on_loading: Callable[[str], None] | None = None,
        pulse_timeout_s: float = PULSE_TIMEOUT_S,
        load_timeout_s: float = LOAD_TIMEOUT_S,
    ) -> None:
        self.name = name
        self.generation = 0
        self.on_loading = on_loading
        self.on_done: Callable[[Stage, Done], None] | None = None
        self._start = start
        self._command = tuple(command or WORKER_COMMAND)
        self._environment = {**_ENVIRONMENT, **(environment or {})}
        self._pulse_timeout_s = pulse_timeout_s
        self._load_timeout_s = load_timeout_s
        self._process: WorkerProcess | None = None
        self._attendant: asyncio.Task[None] | None = None
        self._batches = 0

    @property
    def alive(self) -> bool:
        """Whether a worker is ready for batches."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int | None:
        """The process id of the present or last worker."""
        return self._process.process.pid if self._process else None

    @property
    def models(self) -> Mapping[str, str]:
        """Role to source and revision, as the worker reported them; empty before the first is ready."""
        return self._process.ready.models if self._process and self._process.ready else {}

    @property
    def versions(self) -> Mapping[str, str]:
        """Library versions, as the worker reported them."""
        return self._process.ready.versions if self._process and self._process.ready else {}

    @property
    def last_pulse(self) -> float | None:
        """When the worker was last heard of, on the event loop's clock."""
        return self._process.last_pulse if self._process else None

    @property
    def last_words(self) -> str:
        """How the last worker ended, with the end of its stderr; empty while none has ended."""
        return self._process.obituary() if self._process and self._process.ended.is_set() else ""

    async def start(self) -> Ready:
        """Start a worker and wait until its models are resident.

        Raises DeviceStartError with the child's last words; its `exit_status` is 78 where the child blamed the
        configuration. Cancelled, it leaves no process. Starting a device that has a worker is a RuntimeError.
        """
        if self._process is not None and not self._process.ended.is_set():
            raise RuntimeError(f"device {self.name} has a worker already")
        self.generation += 1
        try:
            opened = await anyio.open_process(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **self._environment},
                start_new_session=True,  # the terminal's Ctrl-C is for the daemon alone
            )
        except OSError as error:
            raise self._start_error(f"{self._command[0]}: {error.strerror}") from error
        process = self._process = WorkerProcess(self.name, opened, self._pulse_timeout_s, self._load_timeout_s)
        self._attendant = asyncio.create_task(process.attend(self._note_loading), name=f"device {self.name}")
        self._attendant.add_done_callback(self._note_attendant)
        try:
            await process.send(self._start)
            await process.settled.wait()
        except BaseException:
            process.condemn("its start was called off")
            raise
        if process.ready is None:
            raise self._start_error(f"worker {opened.pid} {process.obituary()}", opened.returncode)
        return process.ready

    def _start_error(self, why: str, status: int | None = None) -> DeviceStartError:
        hint = "the daemon's log has everything the worker said"
        error = DeviceStartError(f"device {self.name} did not start: {why}", device=self.name, hint=hint)
        if status == EXIT_CONFIGURATION:
            error.exit_status = EXIT_CONFIGURATION
        return error

    def _note_loading(self, what: str) -> None:
        if self.on_loading is not None:
            self.on_loading(what)

    def _note_attendant(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("device %s: reading its worker failed", self.name, exc_info=error)

    async def run(self, stage: Stage, profile: Profile, inputs: Sequence[StageInput], deadline_s: float) -> Done:
        """Run one batch and return its answer. Two may be in flight; a third waits.

        `deadline_s` counts while the batch is the oldest in flight; past it the worker is killed. Raises
        OutOfMemoryError, StageError or WorkerDiedError. Cancelled, it leaves the batch to the worker and drops the
        answer.
        """
        process = self._process
        self._batches += 1
        batch = RunBatch(self._batches, stage, profile, tuple(inputs))
        if process is None:
            error = WorkerDiedError(f"device {self.name}: no worker was started", device=self.name, stage=stage)
            error.begun = False
            raise error
        call = await process.submit(batch, deadline_s)
        await call.answered.wait()
        if isinstance(call.answer, Done):
            if self.on_done is not None:
                self.on_done(stage, call.answer)
            return call.answer
        assert call.answer is not None
        raise call.answer

    def hold(self, roles: Sequence[Role]) -> None:
        """What the next worker loads; the present one keeps what it has."""
        self._start = replace(self._start, roles=tuple(role.value for role in roles))

    async def wait_dead(self) -> None:
        """Return once there is no worker."""
        if self._process is not None:
            await self._process.ended.wait()

    async def stop(self, grace_s: float) -> None:
        """Close the worker's pipe, wait while it finishes the batch under way, kill it after `grace_s`.

        Cancelled, it kills at once. Batches without an answer raise WorkerDiedError with `begun` False.
        """
        process = self._process
        if process is None or process.ended.is_set():
            return
        process.stopping = True
        assert process.process.stdin is not None
        try:
            with anyio.move_on_after(grace_s):
                await process.process.stdin.aclose()
                await process.ended.wait()
        finally:
            process.condemn(f"it did not end within {grace_s:g} s of being asked to")
            with anyio.CancelScope(shield=True):
                await process.ended.wait()
