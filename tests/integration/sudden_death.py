"""A process kills itself with SIGKILL at its n-th event: a statement that writes to a database, a file that it touches.

Events are counted, not timed, so that a moment of death replays.
"""

import atexit
import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_FILES = ("open", "os.rename", "os.remove", "os.mkdir", "os.link")  # audit events whose first argument is a path
_WRITING = ("BEGIN IMMEDIATE", "SAVEPOINT", "RELEASE", "INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE")


class _Counter:
    """Counts events below `folder`; at number `at` (from 0) it kills the process, `children` and all if so told."""

    def __init__(self, folder: str, at: int | None, *, processes: bool) -> None:
        self._folder = folder
        self._at = at
        self._processes = processes
        self._numbers = itertools.count()
        self.events = 0

    def note(self, event: str, arguments: Sequence[object]) -> None:
        """An audit event."""
        if event in _FILES:
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self._folder):
                self._count()

    def note_statement(self, statement: str) -> None:
        """A statement of a database connection."""
        if statement.lstrip("- \n").startswith(_WRITING):
            self._count()

    def _count(self) -> None:
        self.events = next(self._numbers) + 1
        if self._at is not None and self.events > self._at:
            if self._processes:
                _kill_workers()
            os.kill(os.getpid(), signal.SIGKILL)


def _kill_workers() -> None:
    for thread in Path("/proc/self/task").iterdir():
        for process in (thread / "children").read_text().split():
            os.kill(int(process), signal.SIGKILL)


def _arm(at: int | None, *, processes: bool = False) -> None:
    counter = _Counter(os.environ["IMGDIFFD_STATE_FOLDER"], at, processes=processes)
    if tally := os.environ.get("DEATH_TALLY"):
        atexit.register(lambda: Path(f"{tally}.{os.getpid()}").write_text(str(counter.events)))
    sys.addaudithook(counter.note)
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(counter.note_statement)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]  # the driver looks it up there


def arm_daemon() -> None:
    """At the event DEATH_OF_DAEMON of this process, with its workers where DEATH_OF_ALL is set."""
    at = os.environ.get("DEATH_OF_DAEMON")
    _arm(None if at is None else int(at), processes="DEATH_OF_ALL" in os.environ)


def arm_worker() -> None:
    """At the event DEATH_OF_WORKER of whichever worker is the first to take the file DEATH_FUSE away."""
    at: int | None = None
    if fuse := os.environ.get("DEATH_FUSE"):
        try:
            os.unlink(fuse)
            at = int(os.environ["DEATH_OF_WORKER"])
        except FileNotFoundError:
            at = None  # another has it
    _arm(at)
