"""A real daemon process over fake workers, for tests that kill it.

Daemons are forked from one process that has imported everything, since that takes far longer than what most tests do.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio

from imgdiffd.api.client import Client
from imgdiffd.errors import ImgdiffdError
from imgdiffd.job import TERMINAL_JOB_STATES
from imgdiffd.settings import load_settings
from imgdiffd.status import Status
from imgdiffd.testing.worker import COMMAND

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["imgdiffd.daemon.serve", "tests.integration.daemon_process", "uvloop"])
LIMIT_S = 120.0


def _serve(log: str, environment: dict[str, str], worker: Sequence[str], before: str) -> None:
    """The forked process: a daemon that sees of the tests only its settings and what it runs before."""
    from imgdiffd.daemon.serve import serve

    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    exec(before, {})
    try:
        anyio.run(
            lambda: serve(load_settings(), command=worker, reread=load_settings), backend_options={"use_uvloop": True}
        )
    except ImgdiffdError as error:
        print(error, flush=True)
        raise SystemExit(error.exit_status) from error
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


class DaemonProcess:
    """What tests use of `subprocess.Popen`, over a forked daemon."""

    def __init__(self, log: Path, environment: dict[str, str], worker: Sequence[str], before: str) -> None:
        self._process = _FORKS.Process(target=_serve, args=(str(log), environment, tuple(worker), before))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """The exit status at its end, which must come within `limit_s`."""
        self._process.join(limit_s)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("the daemon", limit_s)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing happens to a process that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, as the kernel does it when memory runs out."""
        self.send_signal(signal.SIGKILL)


class RunningDaemon:
    """One start of the daemon in `folder`; `client` is connected to it."""

    def __init__(self, folder: Path, environment: dict[str, str], worker: Sequence[str], before: str) -> None:
        self.folder = folder
        self.log = folder / "daemon.log"
        settings = {
            "IMGDIFFD_CONFIG": os.devnull,
            "IMGDIFFD_STATE_FOLDER": str(folder),
            "IMGDIFFD_SOCKET_PATH": str(folder / "s"),
            "IMGDIFFD_DEVICES": "cpu,cpu",
            "IMGDIFFD_PROFILE": "default",
            "IMGDIFFD_REMOVAL": "false",  # so that the captions' tests see captions alone
            "IMGDIFFD_KEEP_PICTURES": "all",  # so that tests see every image that a row names
            "IMGDIFFD_SETTLE_S": "0.2",
            "IMGDIFFD_POLL_S": "0.1",
            "IMGDIFFD_MIN_FREE_GB": "0",
        }
        self.process = DaemonProcess(self.log, {**os.environ, **settings, **environment}, worker, before)
        self.client = Client(folder / "s")

    def wait(self, condition: Callable[[Status], bool], what: str) -> Status:
        """The first status that fulfils `condition`."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            assert self.process.poll() is None, f"the daemon ended: {self.log.read_text()[-2000:]}"
            if self.client.alive():
                status = self.client.status()
                if condition(status):
                    return status
            assert time.monotonic() < deadline, f"{what} did not come: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def wait_done(self, jobs: int = 1) -> Status:
        """All of at least `jobs` jobs have ended."""

        def over(status: Status) -> bool:
            counts = status.job_counts
            states = {*counts, *(job.state for job in status.jobs)}  # counted a moment after they were listed
            return sum(counts.values()) >= jobs and states <= TERMINAL_JOB_STATES

        return self.wait(over, "the end of every job")

    def kill(self) -> None:
        """SIGKILL, as the kernel does it when memory runs out."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)


@contextmanager
def daemon(
    folder: Path, *, worker: Sequence[str] = COMMAND, before: str = "", **environment: str
) -> Iterator[RunningDaemon]:
    """A running daemon that is gone afterwards, however the test ends; `before` is Python that it runs first."""
    folder.mkdir(parents=True, exist_ok=True)
    running = RunningDaemon(folder, environment, worker, before)
    try:
        yield running
    finally:
        running.client.close()
        running.kill()


def drop(folder: Path, name: str, captions: list[str]) -> None:
    """Put a caption file into the inbox, whole and at once."""
    inbox = folder / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    partial = inbox / f".{name}.part"
    partial.write_text("".join(f"{caption}\n" for caption in captions))
    partial.rename(inbox / name)
