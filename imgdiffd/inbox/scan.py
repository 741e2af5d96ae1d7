"""What a look into the watch folder finds, and whether it may be taken yet.

It owns the names that are left alone and the test of rest; it does not know what happens to a file that is taken.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from imgdiffd.errors import InputError
from imgdiffd.inbox.intake import Fingerprint, refuse_kind

UNFINISHED = (".tmp", ".part")


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A name in the folder and what stood behind it when it was looked at; a link is not followed."""

    name: str
    mode: int
    fingerprint: Fingerprint

    def refuse(self) -> None:
        """Raises InputError where it can never become a job, whatever its content."""
        refuse_kind(self.mode)
        try:
            self.name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError("its name is not UTF-8", code="bad_name", hint="rename it") from error


def is_left_alone(name: str) -> bool:
    """Hidden files and those that say of themselves that they are unfinished."""
    return name.startswith(".") or name.lower().endswith(UNFINISHED)


def look(folder: Path) -> list[ScannedFile]:
    """Everything in `folder` that is not left alone, the oldest first; folders are. Raises OSError."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_left_alone(entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it left between the two calls
            if not stat.S_ISDIR(status.st_mode):
                found.append(ScannedFile(entry.name, status.st_mode, Fingerprint.of(status)))
    return sorted(found, key=lambda scanned: (scanned.fingerprint.modified_ns, scanned.name))


def wait_until_settled(scanned: ScannedFile, rested_s: float, wall_s: float, settle_s: float) -> float:
    """Seconds until a file counts as written to its end; 0 for what is no file.

    `rested_s` is how long we have seen it unchanged. Its modification time speaks too, so that a file that rested
    before we looked is taken at once; one in the future, of a wrong clock, does not.
    """
    if not stat.S_ISREG(scanned.mode):
        return 0.0
    age_s = wall_s - scanned.fingerprint.modified_ns / 1e9
    return max(0.0, settle_s - max(rested_s, age_s))
