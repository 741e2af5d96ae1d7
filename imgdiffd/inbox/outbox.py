"""How files leave the watch folder: to `done`, or to `failed` with the reason beside them; none is ever overwritten."""

import logging
import os
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

from imgdiffd import durable
from imgdiffd.errors import InputError
from imgdiffd.inbox.opened import Fingerprint
from imgdiffd.job import CaptionProblem

_log = logging.getLogger(__name__)

DONE = "done"
FAILED = "failed"
REASON = ".reason.txt"
PROBLEMS = ".problems.tsv"
_ENDINGS = ("", REASON, PROBLEMS)  # of a file and of what may lie beside it
_MAX_NAME_BYTES = 200  # a file system allows 255; the reason's ending and a number must fit


class Outbox:
    """The folders `done` and `failed` inside `inbox`.

    A file that was read as `read`, but was replaced or changed before it could be moved, stays in the inbox, where the
    next scan finds it: nobody has read what it holds now.
    """

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self._done = inbox / DONE
        self._failed = inbox / FAILED
        self._naming = threading.Lock()
        self._reserved: set[Path] = set()  # names of files that are on their way

    def prepare(self) -> None:
        """Make both folders. Raises OSError where files cannot be moved into them, or one is a link."""
        for folder in (self._done, self._failed):
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise NotADirectoryError(0, "is a link; replace it by a folder", str(folder))
            for place in (folder.parent, folder):
                if not os.access(place, os.W_OK | os.X_OK):
                    reason = "files cannot be moved into or out of it; give the user that imgdiffd runs as write access"
                    raise PermissionError(0, reason, str(place))

    def read_files(self) -> list[tuple[Path, int]]:
        """The files in `done`, each with the bytes that it takes on the disk, first those that were moved there first.

        Raises OSError.
        """
        found = []
        for path in self._done.iterdir() if self._done.is_dir() else ():
            seen = path.lstat()
            if stat.S_ISREG(seen.st_mode):
                found.append((seen.st_ctime_ns, path, seen.st_blocks * 512))  # moving a file changes its ctime alone
        return [(path, size) for _, path, size in sorted(found)]

    def to_done(self, path: Path, name: str, problems: str = "", read: Fingerprint | None = None) -> None:
        """Write the table of its problems, where it has any, then move a file that was taken. Raises OSError."""
        with self._free_name(self._done, name) as free:
            table = self._done / (free + PROBLEMS)
            if problems:
                durable.write({table: problems})
            if not self._move(path, self._done / free, read):
                table.unlink(missing_ok=True)

    def to_failed(self, path: Path, name: str, error: InputError, read: Fingerprint | None = None) -> None:
        """Write the reason, then move the refused file. Raises OSError."""
        again = "Move the corrected file back into the inbox to try again.\n"
        text = (
            f"{error.message}\n\nreason: {error.code}\n"
            f"{f'advice: {error.hint}{chr(10)}' if error.hint else ''}{'' if path.is_dir() else again}"
        )
        with self._free_name(self._failed, name) as free:
            reason = self._failed / (free + REASON)
            durable.write({reason: text.encode("utf-8", "replace")})
            if not self._move(path, self._failed / free, read):
                reason.unlink()

    @contextmanager
    def _free_name(self, folder: Path, name: str) -> Iterator[str]:
        """A name like `name` that nothing in `folder` has, and that no other thread gets until this one is done."""
        with self._naming:
            free = _free_name(folder, name, self._reserved)
            places = {folder / (free + end) for end in _ENDINGS}
            self._reserved |= places
        try:
            yield free
        finally:
            self._reserved -= places

    def _move(self, path: Path, target: Path, read: Fingerprint | None) -> bool:
        """Move `path`; returns False where it came back, since it is not what was `read`."""
        try:
            path.rename(target)
        except FileNotFoundError:
            if not target.parent.is_dir():
                raise
            _log.warning("inbox: %r was removed before it could be moved to %s", path.name, target.parent)
            return True
        if read is None or read.is_renamed(Fingerprint.of(target.lstat())):
            return True
        with self._free_name(self._inbox, path.name) as free:
            target.rename(self._inbox / free)
        _log.info("inbox: %r was replaced after it was read; what is there now is taken too", path.name)
        return False


def problem_table(problems: Sequence[CaptionProblem], total: int, job: int) -> str:
    """The first of a job's `total` problems as a table of lines, codes and reasons; "" where there are none."""
    rows = [f"{problem.line}\t{problem.code}\t{problem.message}\n" for problem in problems]
    more = f"…\t\tand {total - len(rows)} more: `imgdiffd problems {job}`\n" if total > len(rows) else ""
    return f"line\treason\tmessage\n{''.join(rows)}{more}" if rows else ""


def _free_name(folder: Path, name: str, reserved: Collection[Path]) -> str:
    suffix = PurePath(name).suffix
    if len(os.fsencode(suffix)) > 20:
        suffix = ""
    stem = os.fsdecode(os.fsencode(name.removesuffix(suffix))[: _MAX_NAME_BYTES - 20])
    candidate, number = stem + suffix, 1
    while any(os.path.lexists(place := folder / (candidate + end)) or place in reserved for end in _ENDINGS):
        number += 1
        candidate = f"{stem}-{number}{suffix}"
    return candidate
