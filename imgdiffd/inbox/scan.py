"""What is in the watch folder, and whether a file there is finished."""

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from imgdiffd.errors import InputError
from imgdiffd.inbox.opened import Fingerprint, refuse_kind
from imgdiffd.inbox.outbox import DONE, FAILED

UNFINISHED = (".tmp", ".part")
_OURS = (DONE, FAILED, "lost+found")  # the last one is in every file system of its own


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A name in the folder and what it stood for during the scan; a link is not followed."""

    name: str
    mode: int
    fingerprint: Fingerprint

    def refuse_unusable(self) -> None:
        """Raises InputError where it can never become a job, whatever its content."""
        refuse_kind(self.mode)
        try:
            self.name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError("its name is not UTF-8", code="bad_name", hint="rename it") from error


def is_ignored(name: str) -> bool:
    """Whether the file is hidden, or its name says that it is unfinished."""
    return name.startswith(".") or name.lower().endswith(UNFINISHED)


def scan_folder(folder: Path) -> list[ScannedFile]:
    """All but the ignored names in `folder`, the oldest first. Raises OSError."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_ignored(entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it left between the two calls
            if not (stat.S_ISDIR(status.st_mode) and entry.name in _OURS):
                found.append(ScannedFile(entry.name, status.st_mode, Fingerprint.of(status)))
    return sorted(found, key=lambda file: (file.fingerprint.modified_ns, file.name))


def seconds_until_settled(
    file: ScannedFile, unchanged_s: float, wall_s: float, settle_s: float, steady_s: float = math.inf
) -> float:
    """Seconds until a file or folder counts as completely written; 0 for a link, pipe, socket or device.

    `unchanged_s` is how long we have seen it unchanged. Its modification time counts too, so that a file which settled
    before we looked is taken at once; a modification time in the future, from a wrong clock, does not. Nor does a
    clock set forward make a file old: `steady_s` is the time since the wall clock last jumped.
    """
    if not (stat.S_ISREG(file.mode) or stat.S_ISDIR(file.mode)):
        return 0.0
    age_s = min(wall_s - file.fingerprint.modified_ns / 1e9, steady_s)
    return max(0.0, settle_s - max(unchanged_s, age_s))
