"""Whether folders, files and the socket are where the daemon can use them; looks only, makes nothing."""

import grp
import os
import pwd
import stat
import subprocess
from pathlib import Path

from imgdiffd.api.listening import refuse_other_file, refuse_taken
from imgdiffd.errors import ConfigurationError
from imgdiffd.settings import Settings

SOCKET_UNIT = "imgdiffd.socket"
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"})


def nearest(folder: Path) -> Path:
    """`folder` or, where it does not exist yet, the nearest above it that does."""
    return next(place for place in (folder, *folder.parents) if os.path.lexists(place))


def refuse_unusable(name: str, folder: Path) -> None:
    """Raise ConfigurationError where this user cannot write `folder`, or cannot make it; `name` says which it is."""
    try:
        place = nearest(folder)
        is_folder = stat.S_ISDIR(place.stat().st_mode)
    except FileNotFoundError as error:  # a link to nowhere
        raise ConfigurationError(f"{name} {folder}: {place} is a link to nowhere", hint="correct the link") from error
    except PermissionError as error:
        raise ConfigurationError(f"{name} {folder}: {error.strerror}", hint=_grant(folder)) from error
    if not is_folder:
        raise ConfigurationError(f"{name} {folder}: {place} is not a folder", hint="remove it, or set another folder")
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        cannot = "cannot be written" if place == folder else f"cannot be made in {place}"
        raise ConfigurationError(f"{name} {folder}: {cannot} by user {_user()}", hint=_grant(place))


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # as in a container without a line for it
        return str(os.geteuid())


def _group(folder: Path) -> str:
    """The group that new files in `folder` belong to, now or once it is made."""
    found = nearest(folder).stat()
    number = found.st_gid if found.st_mode & stat.S_ISGID else os.getegid()
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _grant(folder: Path) -> str:
    return f"give {_user()} access to {folder}, run imgdiffd as the user that it belongs to, or set another folder"


def refuse_nested(settings: Settings, images: Path) -> None:
    """Raise ConfigurationError where, links followed, the watch folder holds or is in a folder of files of our own."""
    inbox = settings.inbox_folder.resolve()
    for name, folder in (("the state folder", settings.state_folder), ("the folder of images", images)):
        if folder.resolve().is_relative_to(inbox):
            raise ConfigurationError(f"inbox_folder {inbox} holds {name}", hint="set another inbox_folder")
    for name, folder in (("images", images), ("compiled kernels", settings.compile_cache_folder)):
        if inbox.is_relative_to(folder.resolve()):
            raise ConfigurationError(
                f"inbox_folder {inbox} is in the folder of {name}", hint="set another inbox_folder"
            )


def network_file_system(folder: Path) -> str:
    """The type of the network file system that `folder` is on; '' for a local one."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()]
    where = nearest(folder).resolve()
    above = [(Path(at), kind) for _, at, kind, *_ in mounts if where.is_relative_to(at)]
    kind = max(above, key=lambda mount: len(mount[0].parts), default=(Path("/"), ""))[1]
    return kind if kind in _NETWORK else ""


def open_to_others(file: Path) -> str:
    """Why anybody on this machine may change `file`; '' where nobody but its owner and group may."""
    if not stat.S_ISREG(file.stat().st_mode):  # /dev/null
        return ""
    if file.stat().st_mode & stat.S_IWOTH:
        return f"{file} may be changed by anybody on this machine"
    mode = file.absolute().parent.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return f"{file} may be replaced by anybody on this machine: its folder is open to all"
    return ""


def socket_state(path: Path, *, answered: bool, ours: bool) -> str:
    """What stands at the socket's path. Raises ImgdiffdError where a daemon could not listen there.

    `answered` says that the daemon of this state folder runs; `ours`, that this process is about to listen.
    """
    if ours and os.environ.get("LISTEN_PID") == str(os.getpid()):
        return "handed over by the service manager"
    refuse_other_file(path)
    if answered:
        return f"{path}, where a daemon runs now"
    if not ours and _is_listened_on(path) and _belongs_to_unit(path):
        return f"{path}, handed over by systemd ({SOCKET_UNIT})"
    refuse_taken(path)
    _refuse_left_behind(path)
    return f"{path}, for user {_user()} and group {_group(path.parent)}"


def _refuse_left_behind(path: Path) -> None:
    """Raise ConfigurationError where a dead daemon's socket cannot be removed: it is another user's, in /tmp or so."""
    folder = nearest(path.parent).stat()
    may_remove = {0, folder.st_uid, path.lstat().st_uid if os.path.lexists(path) else os.geteuid()}
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in may_remove:
        raise ConfigurationError(
            f"{path}: the socket of another user's daemon, which has ended",
            hint="remove it, or set another socket_path",
        )


def _is_listened_on(path: Path) -> bool:
    """Whether the kernel lists a listener. Connecting to ask would have systemd start the daemon."""
    rows = Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()[1:]
    accepting = 0x10000  # __SO_ACCEPTCON
    found = (row.split(maxsplit=7) for row in rows)
    return any(len(row) == 8 and int(row[3], 16) & accepting and row[7] == str(path) for row in found)


def _belongs_to_unit(path: Path) -> bool:
    command = ["systemctl", "show", "--property=ActiveState,Listen", SOCKET_UNIT]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):  # no systemd here
        return False
    return "ActiveState=active" in told and f"Listen={path} " in told
