"""One device as the daemon sees it: starts its worker process, sends it batches and ends it."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import anyio

from imgdiffd.errors import EXIT_CONFIGURATION, DeviceStartError, WorkerDiedError
from imgdiffd.fleet.wire import Done, Ready, Start
from imgdiffd.fleet.worker_process import WorkerProcess
from imgdiffd.method.messages import StageInput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Role, Stage

WORKER_COMMAND = (sys.executable, "-P", "-m", "imgdiffd.worker")
PULSE_TIMEOUT_S = 30.0
LOAD_TIMEOUT_S = 600.0  # of silence while loading: importing torch from a cold disk stops every thread
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}

_log = logging.getLogger(__name__)


class DeviceProcess:
    """The worker of one device; `start` after its end makes the next generation.

    `on_loading` is told what is being loaded, `on_done` of every batch that is answered. `command` replaces the worker
    (tests use `imgdiffd.testing.worker`), `environment` adds to what it inherits. Needs asyncio's loop: a task of its
    own attends to the worker, which outlives the task that started it when the daemon stops in order.
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
        self._worker: WorkerProcess | None = None
        self._attendant: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether a worker is ready for batches."""
        return self._worker is not None and self._worker.alive

    @property
    def pid(self) -> int | None:
        """The process id of the present worker, or of the last one."""
        return self._worker.pid if self._worker else None

    @property
    def models(self) -> Mapping[str, str]:
        """Role to source and revision, as the worker reported them; empty until it is ready."""
        return self._worker.ready.models if self._worker and self._worker.ready else {}

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions by library, as the worker reported them; empty until it is ready."""
        return self._worker.ready.versions if self._worker and self._worker.ready else {}

    @property
    def last_pulse(self) -> float | None:
        """When the worker was last heard of, on the event loop's clock."""
        return self._worker.last_pulse if self._worker else None

    @property
    def exit_reason(self) -> str:
        """How the last worker ended, with the last line of its stderr; empty while it runs, or before the first."""
        return self._worker.exit_reason if self._worker and self._worker.ended.is_set() else ""

    async def start(self) -> Ready:
        """Start a worker and wait until its models are resident.

        Raises DeviceStartError with the reason for which it ended; `exit_status` of the error is 78 where the worker
        found its configuration wrong. If cancelled, it leaves no process behind. Raises RuntimeError if there is a
        worker already.
        """
        if self._worker is not None and not self._worker.ended.is_set():
            raise RuntimeError(f"device {self.name} already has a worker")
        self.generation += 1
        try:
            opened = await anyio.open_process(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C in the terminal is for the daemon alone
            )
        except OSError as error:
            raise self._start_error(f"{self._command[0]}: {error.strerror}") from error
        worker = self._worker = WorkerProcess(self.name, opened, self._pulse_timeout_s, self._load_timeout_s)
        self._attendant = asyncio.create_task(worker.attend(self._note_loading), name=f"device {self.name}")
        self._attendant.add_done_callback(self._note_attendant)
        try:
            await worker.send(self._start)
            await worker.settled.wait()
        except BaseException:
            worker.kill("its start was cancelled")
            raise
        if worker.ready is None:
            raise self._start_error(f"worker {worker.pid} {worker.exit_reason}", worker.exit_status)
        return worker.ready

    def _start_error(self, why: str, status: int | None = None) -> DeviceStartError:
        hint = "see the daemon's log for everything that the worker said"
        error = DeviceStartError(f"device {self.name} did not start: {why}", device=self.name, hint=hint)
        if status == EXIT_CONFIGURATION:
            error.exit_status = EXIT_CONFIGURATION
        return error

    def _note_loading(self, what: str) -> None:
        if self.on_loading is not None:
            self.on_loading(what)

    def _note_attendant(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.critical("device %s: attending to its worker failed", self.name, exc_info=error)

    async def run(self, stage: Stage, profile: Profile, inputs: Sequence[StageInput], deadline_s: float) -> Done:
        """Run one batch and return its answer. Two may be in flight; a third one waits.

        `deadline_s` counts while the batch is the oldest in flight; past it the worker is killed. Raises
        OutOfMemoryError, StageError or WorkerDiedError. If cancelled, the batch runs on and its answer is dropped.
        """
        if self._worker is None:
            error = WorkerDiedError(f"device {self.name}: no worker was started", device=self.name, stage=stage)
            error.begun = False
            raise error
        call = await self._worker.submit(stage, profile, inputs, deadline_s)
        await call.answered.wait()
        if isinstance(call.answer, Done):
            if self.on_done is not None:
                self.on_done(stage, call.answer)
            return call.answer
        assert call.answer is not None
        raise call.answer

    def hold(self, roles: Sequence[Role]) -> None:
        """Have the next worker load these roles; the present one keeps what it has."""
        self._start = replace(self._start, roles=tuple(role.value for role in roles))

    async def wait_dead(self) -> None:
        """Return once no worker runs."""
        if self._worker is not None:
            await self._worker.ended.wait()

    async def stop(self, grace_s: float) -> None:
        """Ask the worker to end after the batch under way, and kill it after `grace_s` or when cancelled.

        Batches that it leaves without an answer raise WorkerDiedError with `begun` False.
        """
        worker = self._worker
        if worker is None or worker.ended.is_set():
            return
        try:
            with anyio.move_on_after(grace_s):
                await worker.ask_to_end()
                await worker.ended.wait()
        finally:
            worker.kill(f"it did not end within {grace_s:g} s of being asked to")
            with anyio.CancelScope(shield=True):
                await worker.ended.wait()
