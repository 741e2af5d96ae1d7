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
BALLAST_SHARE = 1 / 8  # of a small disk, at most
RECORD_BYTES = 4 << 20  # for the files of the database when it is opened, and for what a batch adds to it
MOST_NEEDED = 1 / 4  # of a small disk: what a batch needs is an upper bound
IMPOSSIBLE_SHARE = 1 / 10  # of the disk, in place of a threshold that is larger than the disk
_GIB = 1 << 30

T = TypeVar("T")


class Dispatch(Protocol):
    """The part of the scheduler that the disk guard pauses."""

    def pause(self, reason: str) -> None:
        """Dispatch nothing more, because of `reason`."""

    def resume(self, reason: str) -> None:
        """Dispatch again, unless another reason still holds."""


class DiskGuard:
    """`problem` says what is wrong, '' while there is room. Dispatch is not paused before `guard` is called.

    After a write that found the disk full, dispatch goes on once there is room for what that write needed.
    """

    def __init__(self, folder: Path, min_free_gb: float, *, ballast_bytes: int = BALLAST_BYTES) -> None:
        self._folder = folder
        self._ballast = folder / BALLAST_NAME
        self._ballast_bytes = ballast_bytes
        self._min_free_gb = min_free_gb
        self._dispatch: Dispatch | None = None
        self._needed = 0  # bytes without which going on is of no use; 0: no write has found the disk full
        self._given_up = 0  # bytes of ballast, which do not count as room
        self.problem = ""

    async def wait_startable(self, say: Callable[[str], None]) -> None:
        """Wait for room to open the database, giving up the ballast if needed; `say` gets the reason at each check."""
        while shutil.disk_usage(self._folder).free < RECORD_BYTES:
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
            disk = shutil.disk_usage(self._folder)
        except OSError as error:
            self._hold(f"disk: {self._folder} cannot be looked at: {error.strerror}")
            return
        needed = min(self._needed, int(MOST_NEEDED * disk.total)) + self._given_up
        if disk.free < needed:
            what = f"a write found it full, and the next needs {_readable(needed)}"
            self._hold(f"disk: {_readable(disk.free)} free at {self._folder}; {what}")
            return
        self._needed = self._given_up = 0  # what waits to be recorded is; whether more is started is another question
        least, below = self._min_free_gb * _GIB, f"below min_free_gb = {self._min_free_gb:g}"
        if least > disk.total:
            least = IMPOSSIBLE_SHARE * disk.total
            below = f"below a tenth of the disk, which is smaller than min_free_gb = {self._min_free_gb:g}"
        if disk.free < least:
            self._hold(f"disk: {_readable(disk.free)} free at {self._folder}, {below}")
            return
        ballast_bytes = min(self._ballast_bytes, int(BALLAST_SHARE * disk.total))
        if not self._ballast.exists() and disk.free >= least + RECORD_BYTES + ballast_bytes:
            self._take_ballast(ballast_bytes)
        if self.problem:
            _log.info("disk: there is room again at %s", self._folder)
            self.problem = ""
            if self._dispatch is not None:
                self._dispatch.resume(REASON)

    def note_full(self, needed: int = 0) -> bool:
        """Pause dispatch after a write of about `needed` bytes, besides its rows, found no room.

        Returns True if giving up the ballast has made some.
        """
        self._needed = max(self._needed, needed + RECORD_BYTES)
        self._hold(f"disk: full at {self._folder}")
        try:
            size = self._ballast.stat().st_blocks * 512
            self._ballast.unlink()
        except OSError:  # already given up, or out of reach
            return False
        self._given_up += size
        _log.warning("disk: gave up the ballast of %s", _readable(size))
        return True

    async def retry_while_full(self, change: Callable[[], Awaitable[T]]) -> T:
        """The result of `change`; while the disk is full, it waits for room and tries again."""
        while True:
            try:
                return await change()
            except StoreFullError:
                self.note_full()
                while self._needed:
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

    def _take_ballast(self, size: int) -> None:
        if not size:
            return
        try:
            durable.write({self._ballast: lambda file: os.posix_fallocate(file.fileno(), 0, size)})
        except OSError as error:
            _log.warning("disk: cannot write the ballast %s: %s", self._ballast, error.strerror)


def _readable(size: float) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / (1 << 20):.0f} MiB"
