"""Notices that the state folder was moved away, or the socket's file removed, under the running daemon."""

import logging
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path

import anyio

from imgdiffd.api.listening import bind
from imgdiffd.errors import ImgdiffdError, StoreDamagedError

_log = logging.getLogger(__name__)

CHECK_S = 2.0

Identity = tuple[int, int]


def _identity(path: Path) -> Identity | None:
    """Which file or folder has that path now; None if there is none. Raises OSError if the file system fails."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


class StateWatch:
    """Knows the folder, its images and its database by their identity, as they are when this is made.

    Going on would be wrong: the open database is still the one that was moved away, while images are written by path,
    into whatever is there now.
    """

    def __init__(self, *places: Path) -> None:
        self._known = {place: _identity(place) for place in places}

    def check(self) -> None:
        """Raise StoreDamagedError unless all are where they were; takes some microseconds."""
        for place, known in self._known.items():
            try:
                here = _identity(place) == known
            except OSError:  # a file system that does not answer, which the disk guard reports, is not another one
                continue
            if not here:
                what = "was replaced" if place.exists() else "was moved away or removed"
                raise StoreDamagedError(
                    f"{place} {what} while the daemon worked with it",
                    hint="put it back, then start the daemon: all that was recorded is in it",
                )

    async def run(self) -> None:
        """Check every CHECK_S seconds until cancelled."""
        while True:
            self.check()
            await anyio.sleep(CHECK_S)


class SocketKeeper:
    """Answers on a listening socket, and on another at the same path once that file is removed or replaced.

    Connections that are open go on. `problem` says why nobody can connect, '' if they can.
    """

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[socket.socket], Coroutine[object, object, None]],
        state: StateWatch,
    ) -> None:
        self._listener = listener
        self._answer = answer
        self._state = state
        self._path = Path(listener.getsockname())
        self._known = _identity(self._path)
        self.problem = ""

    async def run(self) -> None:
        """Answer until cancelled."""
        rebound = False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._answer, self._listener)
                while True:
                    await anyio.sleep(CHECK_S)
                    if self._in_place():
                        self._say("")
                    elif (fresh := self._bind_again()) is not None:
                        rebound = True
                        group.start_soon(self._answer, fresh)
        finally:
            if rebound and self._in_place():
                self._path.unlink(missing_ok=True)

    def _in_place(self) -> bool:
        try:
            return _identity(self._path) == self._known
        except OSError:  # nothing can be done about it here
            return True

    def _bind_again(self) -> socket.socket | None:
        self._state.check()  # `bind` makes the folders of the path, which must not hide that they were moved
        try:
            fresh = bind(self._path)
        except (ImgdiffdError, OSError) as error:
            self._say(f"socket: {self._path} was removed or replaced, and cannot be made again: {error}")
            return None
        self._known = _identity(self._path)
        self._say("")
        _log.warning("socket: %s was removed or replaced; it was made again", self._path)
        return fresh

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem
