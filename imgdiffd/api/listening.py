"""The Unix socket that the API is served on: the service manager's where it passed one, else one of our own."""

import logging
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from imgdiffd.errors import ConfigurationError, DaemonError, reason_of

_log = logging.getLogger(__name__)

SOCKET_MODE = 0o660
SOCKET_NAME = "api"  # FileDescriptorName= of the socket unit
FIRST_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


def refuse_taken(path: Path) -> None:
    """Raise DaemonError where a daemon answers at `path`, ConfigurationError where something else stands there.

    A service manager that listens there for the daemon starts it when this asks.
    """
    refuse_other_file(path)
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise DaemonError(f"a daemon already listens on {path}", hint="stop it first, or set another socket_path")


def refuse_other_file(path: Path) -> None:
    """Raise ConfigurationError where something stands at `path` that is not a socket."""
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigurationError(f"{path} exists and is not a socket", hint="remove it, or set another socket_path")


def bind(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, never more open than 0660.

    A socket left behind by a dead daemon is replaced. Raises as `refuse_taken` does, and DaemonError where the system
    refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_taken(path)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    old_mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise DaemonError(
            f"cannot listen on {path}: {reason_of(error)}",
            hint="check its folder and who may write to it, or set another socket_path",
        ) from error
    finally:
        os.umask(old_mask)
    listener.listen(128)
    return listener


def inherited(environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The listening Unix socket that a service manager opened for this process (sd_listen_fds(3)); None without one.

    Raises ConfigurationError for several of which none is named `api`, for another kind of socket, and for one that is
    open to others than its owner and group.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = int(environ.get("LISTEN_FDS", "0"))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    if count > 1 and SOCKET_NAME not in names[:count]:
        raise ConfigurationError(
            f"{count} sockets were passed, none of them named {SOCKET_NAME}",
            hint=f"set FileDescriptorName={SOCKET_NAME} in the socket unit",
        )
    if count < 1:
        return None
    listener = socket.socket(fileno=FIRST_INHERITED + (names.index(SOCKET_NAME) if count > 1 else 0))
    try:
        _refuse_unfit(listener)
    except ConfigurationError:
        listener.close()
        raise
    listener.set_inheritable(False)
    return listener


def _refuse_unfit(listener: socket.socket) -> None:
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    address = listener.getsockname()  # bytes for the abstract namespace, which has no modes
    if not listens or listener.family != socket.AF_UNIX or not isinstance(address, str):
        raise ConfigurationError("the socket passed is not a listening Unix socket", hint="set ListenStream=/a/path")
    mode = stat.S_IMODE(Path(address).lstat().st_mode)
    if mode & ~SOCKET_MODE:
        raise ConfigurationError(
            f"{address} has mode {mode:04o}, more than {SOCKET_MODE:04o}",
            hint="set SocketMode=0660 in the socket unit",
        )


@contextmanager
def listening(path: Path, environ: Mapping[str, str] = os.environ) -> Iterator[socket.socket]:
    """The service manager's socket where it passed one, else `bind`'s at `path`; only the latter is removed again."""
    listener = inherited(environ)
    if listener is not None:
        with listener:
            if (found := listener.getsockname()) != str(path):
                _log.warning("the service manager listens on %s; socket_path says %s", found, path)
            yield listener
        return
    with bind(path) as listener:
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)
