"""Why no daemon can be reached at a socket's path, and what its user can do about that."""

import grp
import os
import pwd
import stat
from pathlib import Path

from imgdiffd.errors import DaemonError

_START = "start it with `imgdiffd serve`, or correct socket_path"


def unreachable(path: Path, error: OSError) -> DaemonError:
    """The error for a connection to `path` that failed with `error`."""
    match error:
        case PermissionError():
            return _forbidden(path)
        case BlockingIOError() | TimeoutError():
            hint = "its process may be stopped or overloaded: try again, or restart it"
            return DaemonError(f"the daemon at {path} takes no connection", hint=hint)
        case FileNotFoundError():
            why = "there is no socket" if path.parent.is_dir() else f"there is no folder {path.parent}"
        case ConnectionRefusedError():
            why = "the one that made this socket has ended" if path.is_socket() else "this is not a socket"
        case _:
            why = error.strerror or str(error)
    return DaemonError(f"no daemon answers at {path}: {why}", hint=_START)


def _forbidden(path: Path) -> DaemonError:
    """Names the group that may use the socket, where there is one that this user could join."""
    place, needed = _closed(path)
    try:
        found = place.stat()
    except OSError:
        return DaemonError(f"{path}: permission denied", hint="ask whoever runs the daemon for access to this folder")
    user, owner = _user_name(os.geteuid()), _user_name(found.st_uid)
    if (found.st_mode >> 3) & needed != needed or found.st_gid == 0:  # nobody is told to join the group of root
        return DaemonError(f"only user {owner} may use {place}", hint=f"run this as that user: sudo -u {owner} …")
    group = _group_name(found.st_gid)
    if user in _members(found.st_gid):
        return DaemonError(f"{place}: user {user} joined group {group} after logging in", hint="log in again")
    return DaemonError(
        f"{place}: user {user} is not in group {group}",
        hint=f"run: sudo usermod --append --groups {group} {user}; then log in again",
    )


def _closed(path: Path) -> tuple[Path, int]:
    """The highest folder on the way to `path` that this user may not enter, else `path`; and the mode bits needed."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return folder, stat.S_IXOTH
    return path, stat.S_IWOTH


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # as in a container without a line for it
        return str(number)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _members(number: int) -> list[str]:
    try:
        return grp.getgrgid(number).gr_mem
    except KeyError:
        return []
