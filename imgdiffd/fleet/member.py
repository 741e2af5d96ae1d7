"""What the supervisor knows of one device: its state, its failures, and when its next worker may start."""

import logging
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import anyio

from imgdiffd.errors import EXIT_CONFIGURATION, DeviceStartError
from imgdiffd.fleet.device import DeviceProcess
from imgdiffd.fleet.wire import Done, Ready
from imgdiffd.pipeline import Role
from imgdiffd.status import DeviceView

_log = logging.getLogger(__name__)

PARK_AFTER_FAILURES = 5
PARK_WINDOW_S = 300.0
_BACKOFF_S = (0.0, 1.0, 5.0, 15.0, 30.0)
_FRUITLESS_S = (0.0,) * PARK_AFTER_FAILURES + (1.0, 5.0, 15.0, 60.0, 300.0)  # before the next worker, by those in a row


@dataclass
class Member:
    """One device of the fleet. The methods note what happened to its worker."""

    device: DeviceProcess
    roles: tuple[Role, ...]
    state: str = "starting"
    detail: str = ""
    restarts: int = 0
    moving: bool = False  # its worker is being ended so that the next one can hold other models
    _failures: deque[float] = field(default_factory=deque)  # when a start failed, within the last PARK_WINDOW_S
    _worked: bool = False  # the present worker has answered a batch
    _fruitless: int = 0  # workers in a row that started and ended without having answered any
    _counters: Counter[str] = field(default_factory=Counter)
    _notes: tuple[str, ...] = ()

    @property
    def parked(self) -> bool:
        """Whether no worker is started on it any more."""
        return self.state == "parked"

    def note_ready(self, ready: Ready) -> None:
        """A new worker is ready; the notes are its own."""
        self.state, self.detail, self._notes = "ready", "", ()
        self._worked = False
        self._add_notes(ready.notes)

    def note_done(self, done: Done) -> None:
        """The worker answered a batch."""
        self._worked = True
        self._counters.update(done.counters)
        self._add_notes(done.notes)

    def note_start_failed(self, error: DeviceStartError) -> float:
        """A worker did not start: the device is parked, or the next one may start after the seconds returned."""
        now = anyio.current_time()
        self._failures.append(now)
        while self._failures[0] < now - PARK_WINDOW_S:
            self._failures.popleft()
        parked = len(self._failures) >= PARK_AFTER_FAILURES or error.exit_status == EXIT_CONFIGURATION
        self.state = "parked" if parked else "restarting"
        self.detail = str(error)
        return _BACKOFF_S[min(len(self._failures), len(_BACKOFF_S) - 1)]

    def note_ended(self) -> float:
        """The worker ended unasked; the next one may start after the seconds returned."""
        self.state, self.detail = "restarting", self.device.exit_reason
        self.restarts += 1
        self._fruitless = 0 if self._worked else self._fruitless + 1
        wait_s = _FRUITLESS_S[min(self._fruitless, len(_FRUITLESS_S) - 1)]
        if wait_s:
            self.detail += f"; the last {self._fruitless} workers did no batch, the next starts in {wait_s:g} s"
        return wait_s

    def _add_notes(self, notes: Iterable[str]) -> None:
        """Keep and log each note once."""
        for note in notes:
            if note not in self._notes:
                self._notes += (note,)
                _log.warning("%s: %s", self.device.name, note)

    def view(self, running: int, queued: int, busy_s: float) -> DeviceView:
        """What to show of it, with its running batches, queued items and busy seconds."""
        return DeviceView(
            name=self.device.name,
            state=self.state,
            detail=self.detail,
            pid=self.device.pid if self.device.alive else None,
            restarts=self.restarts,
            running=running,
            queued=queued,
            busy_s=busy_s,
            roles=tuple(role.value for role in self.roles),
            counters=dict(self._counters),
            notes=self._notes,
        )
