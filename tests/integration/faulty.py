"""A daemon over workers that a test holds, heals and makes small, and looks at its rows and answers.

It owns the gates: files in the daemon's folder that hold a worker up while they exist; it does not know what is tested.
As a program it is that worker. FAULTY_HEALS lets each mishap happen once, FAULTY_FITS is the largest batch that fits
into memory, FAULTY_START makes every start fail, FAULTY_CHILD leaves a child behind that holds the worker's pipes.
"""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx

from imgdiffd.fleet.wire import Start
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Stage
from imgdiffd.testing import worker
from imgdiffd.worker.serve import serve
from tests.integration.daemon_process import LIMIT_S, RunningDaemon, daemon

HOLD_START = "hold-start"  # no worker becomes ready
HOLD_BATCH = "hold-batch"  # no batch goes on
HOLD_STAGE = "hold-{}"  # none of this stage does
_FOLDER = Path(os.environ.get("IMGDIFFD_STATE_FOLDER", ""))
_GATE_S = 0.01


def _wait_at(gate: str) -> None:
    while (_FOLDER / gate).exists():
        time.sleep(_GATE_S)


class FaultyEngine(worker.FakeEngine):
    """The fake engine behind gates."""

    def __init__(self, start: Start, say: Callable[[str], None]) -> None:
        super().__init__(start, say)
        (_FOLDER / f"started-{os.getpid()}").touch()
        if os.environ.get("FAULTY_START"):
            raise ZeroDivisionError("the start was told to fail")
        if os.environ.get("FAULTY_CHILD") and os.fork() == 0:
            signal.pause()
        _wait_at(HOLD_START)

    def run(self, stage: Stage, profile: Profile, inputs: Sequence[StageInput]) -> tuple[StageOutput, ...]:
        """As the fake engine, once the gate is open and where it fits."""
        _wait_at(HOLD_BATCH)
        _wait_at(HOLD_STAGE.format(stage))
        items, fits = len(inputs), int(os.environ.get("FAULTY_FITS", "1000000"))
        if items > fits:
            raise MemoryError(f"no room for {items} items in {stage}")
        return super().run(stage, profile, inputs)


def _suffer_once(mishap: str, batch_items: int, suffer: Callable[[str, int], None] = worker._suffer) -> None:
    try:
        (_FOLDER / f"suffered-{mishap}").touch(exist_ok=False)
    except FileExistsError:
        return
    suffer(mishap, batch_items)


def faulty(folder: Path, *, before: str = "", **environment: str) -> AbstractContextManager[RunningDaemon]:
    """`daemon` over these workers."""
    root = str(Path(__file__).parents[2])
    return daemon(folder, worker=(sys.executable, "-P", __file__), before=before, PYTHONPATH=root, **environment)


def workers_started(folder: Path) -> set[int]:
    """The process ids of every worker so far."""
    return {int(path.name.removeprefix("started-")) for path in folder.glob("started-*")}


def until(condition: Callable[[], bool], what: str, within_s: float = LIMIT_S) -> float:
    """Wait for `condition`; returns the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + within_s, f"{what} did not come within {within_s:g} s"
        time.sleep(_GATE_S)
    return time.monotonic() - began


def never(condition: Callable[[], bool], what: str, for_s: float) -> None:
    """`condition` does not come about in that time."""
    ends = time.monotonic() + for_s
    while time.monotonic() < ends:
        assert not condition(), what
        time.sleep(_GATE_S)


def answer(folder: Path, path: str, method: str = "GET") -> httpx.Response:
    """What the daemon in `folder` answers."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "s"), verify=False), timeout=LIMIT_S) as client:
        return client.request(method, f"http://imgdiffd{path}")


def rows(folder: Path, question: str) -> list[tuple[Any, ...]]:
    """The database's answer, with or without a running daemon."""
    with closing(sqlite3.connect(f"file:{folder / 'state.db'}?mode=rw", uri=True)) as connection:  # made by the daemon
        return connection.execute(question).fetchall()


if __name__ == "__main__":
    if os.environ.get("FAULTY_HEALS"):
        worker._suffer = _suffer_once
    sys.exit(serve(FaultyEngine, pulse_s=worker.PULSE_S))
