"""How files leave the watch folder: to `done`, or to `failed` with the reason beside them; none is ever overwritten."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from imgdiffd import durable
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem

_log = logging.getLogger(__name__)

DONE = "done"
FAILED = "failed"
REASON = ".reason.txt"
PROBLEMS = ".problems.tsv"
_MAX_NAME_BYTES = 200  # a file system allows 255; the reason's ending and a number must fit


class Outbox:
    """The folders `done` and `failed` inside `inbox`."""

    def __init__(self, inbox: Path) -> None:
        self._done = inbox / DONE
        self._failed = inbox / FAILED

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

    def to_done(self, path: Path, name: str, problems: str) -> None:
        """Write the list of its problems, where it has any, then move a file that was read. Raises OSError."""
        free = _free_name(self._done, name)
        if problems:
            durable.write({self._done / (free + PROBLEMS): problems})
        self._move(path, self._done / free)

    def to_failed(self, path: Path, name: str, error: InputError) -> None:
        """Write the reason, then move the refused file. Raises OSError."""
        free = _free_name(self._failed, name)
        again = "Move the corrected file back into the inbox to try again.\n"
        text = (
            f"{error.message}\n\nreason: {error.code}\n"
            f"{f'advice: {error.hint}{chr(10)}' if error.hint else ''}{'' if path.is_dir() else again}"
        )
        durable.write({self._failed / (free + REASON): text.encode("utf-8", "replace")})
        self._move(path, self._failed / free)

    def _move(self, path: Path, target: Path) -> None:
        try:
            path.rename(target)
        except FileNotFoundError:
            if not target.parent.is_dir():
                raise
            _log.warning("inbox: %r was removed before it could be moved to %s", path.name, target.parent)


def problem_table(problems: Sequence[CaptionProblem], total: int, job: int) -> str:
    """The first of a job's `total` problems as a table of lines, codes and reasons; "" where there are none."""
    rows = [f"{problem.line}\t{problem.code}\t{problem.message}\n" for problem in problems]
    more = f"…\t\tand {total - len(rows)} more: `imgdiffd problems {job}`\n" if total > len(rows) else ""
    return f"line\treason\tmessage\n{''.join(rows)}{more}" if rows else ""


def _free_name(folder: Path, name: str) -> str:
    suffix = PurePath(name).suffix
    if len(os.fsencode(suffix)) > 20:
        suffix = ""
    stem = os.fsdecode(os.fsencode(name.removesuffix(suffix))[: _MAX_NAME_BYTES - 20])
    candidate, number = stem + suffix, 1
    while os.path.lexists(folder / candidate) or os.path.lexists(folder / (candidate + REASON)):
        number += 1
        candidate = f"{stem}-{number}{suffix}"
    return candidate
