"""Watches the free disk space: pauses dispatch below a threshold, and gives up the ballast when the disk is full."""

import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

import anyio

from imgdiffd import durable
from imgdiffd.errors import StoreFullError
from imgdiffd.settings import Settings

_log = logging.getLogger(__name__)

CHECK_S = 5.0
REASON = "disk"
BALLAST_NAME = "ballast"
BALLAST_BYTES = 32 << 20  # room to record the batches still running when the disk fills up
LEAST_TO_START = 4 << 20  # for the files that the database makes when it is opened
_GIB = 1 << 30

T = TypeVar("T")


class Dispatch(Protocol):
    """The part of the scheduler that the disk guard pauses."""

    def pause(self, reason: str) -> None:
        """Dispatch nothing more, because of `reason`."""

    def resume(self, reason: str) -> None:
        """Dispatch again, unless another reason still holds."""


class DiskGuard:
    """`problem` says what is wrong, '' while there is room. Dispatch is not paused before `guard` is called."""

    def __init__(self, folder: Path, min_free_gb: float, *, ballast_bytes: int = BALLAST_BYTES) -> None:
        self._folder = folder
        self._ballast = folder / BALLAST_NAME
        self._ballast_bytes = ballast_bytes
        self._min_free_gb = min_free_gb
        self._dispatch: Dispatch | None = None
        self._full = False
        self.problem = ""

    async def wait_startable(self, say: Callable[[str], None]) -> None:
        """Wait for room to open the database, giving up the ballast if needed; `say` gets the reason at each check."""
        while shutil.disk_usage(self._folder).free < LEAST_TO_START:
            if not self.note_full():
                say(f"disk: full at {self._folder}; waiting for room")
                await anyio.sleep(CHECK_S)

    def guard(self, dispatch: Dispatch) -> None:
        """From now on pause `dispatch` while there is too little room."""
        self._dispatch = dispatch
        self.check()

    def use(self, settings: Settings) -> None:
        """Use the threshold of these settings from the next check on."""
        self._min_free_gb = settings.min_free_gb

    def check(self) -> None:
        """Check once; restore the ballast if there is room."""
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            self._hold(f"disk: {self._folder} cannot be looked at: {error.strerror}")
            return
        least = self._min_free_gb * _GIB
        if self._full:  # a write failed: space freed by the ballast does not count as room
            least = max(least, 2 * self._ballast_bytes)
        if free < least:
            below = f"below min_free_gb = {self._min_free_gb:g}" if not self._full else "and a write found it full"
            self._hold(f"disk: {free / _GIB:.1f} GiB free at {self._folder}, {below}")
            return
        if not self._ballast.exists() and free >= least + self._ballast_bytes:
            self._take_ballast()
        self._full = False
        if self.problem:
            _log.info("disk: there is room again at %s", self._folder)
            self.problem = ""
            if self._dispatch is not None:
                self._dispatch.resume(REASON)

    def note_full(self) -> bool:
        """Pause dispatch after a write found no room. Returns True if giving up the ballast has made some."""
        self._full = True
        self._hold(f"disk: full at {self._folder}")
        try:
            self._ballast.unlink()
        except OSError:  # already given up, or out of reach
            return False
        _log.warning("disk: gave up the ballast of %d MiB", self._ballast_bytes >> 20)
        return True

    async def retry_while_full(self, change: Callable[[], Awaitable[T]]) -> T:
        """The result of `change`; while the disk is full, it waits for room and tries again."""
        while True:
            try:
                return await change()
            except StoreFullError:
                self.note_full()
                while self._full:
                    await anyio.sleep(CHECK_S)
                    self.check()

    async def run(self) -> None:
        """Check every CHECK_S seconds until cancelled."""
        while True:
            self.check()
            await anyio.sleep(CHECK_S)

    def _hold(self, what: str) -> None:
        if not self.problem:
            _log.warning("%s; nothing new is started", what)
        self.problem = f"{what}; nothing new is started until there is room"
        if self._dispatch is not None:
            self._dispatch.pause(REASON)

    def _take_ballast(self) -> None:
        try:
            durable.write({self._ballast: lambda file: os.posix_fallocate(file.fileno(), 0, self._ballast_bytes)})
        except OSError as error:
            _log.warning("disk: cannot write the ballast %s: %s", self._ballast, error.strerror)
