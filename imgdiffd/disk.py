"""Watches the free space of the state folder and holds dispatch back while there is too little.

It owns the threshold and its wording; it does not know what fills the disk.
"""

import shutil
from pathlib import Path
from typing import Protocol

import anyio

CHECK_S = 5.0
_GIB = 1 << 30


class Dispatch(Protocol):
    """What can be held back."""

    def pause(self, reason: str) -> None:
        """Dispatch nothing more for `reason`."""

    def resume(self, reason: str) -> None:
        """`reason` no longer holds."""


class DiskGuard:
    """`problem` is empty while there is room, else a sentence for people."""

    def __init__(self, folder: Path, min_free_gb: float, dispatch: Dispatch) -> None:
        self._folder = folder
        self._min_free_gb = min_free_gb
        self._dispatch = dispatch
        self.problem = ""

    def check(self) -> None:
        """Look once. Raises OSError where the folder cannot be asked."""
        free_gb = shutil.disk_usage(self._folder).free / _GIB
        if free_gb < self._min_free_gb:
            self.problem = (
                f"disk: {free_gb:.1f} GiB free at {self._folder}, below min_free_gb = {self._min_free_gb:g}; "
                "nothing new is started until there is room"
            )
            self._dispatch.pause("disk")
        elif self.problem:
            self.problem = ""
            self._dispatch.resume("disk")

    async def run(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            self.check()
            await anyio.sleep(CHECK_S)
