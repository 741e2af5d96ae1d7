"""The folder that a dataset goes to: whether it may be written, and what an older export left there."""

import fcntl
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from imgdiffd import durable
from imgdiffd.errors import ExportError
from imgdiffd.export import contact_sheet, release, removal
from imgdiffd.settings import Settings

MARK = ".imgdiffd-export"
_MARK_TEXT = (
    b"`imgdiffd export` owns the files that it wrote to this folder: the next export replaces or removes them.\n"
)
_IMAGE_FOLDERS = (release.IMAGE_FOLDER, removal.IMAGE_FOLDER)
_LISTS = (release.JSON_NAME, removal.JSON_NAME, contact_sheet.NAME)
_IMAGE = re.compile(r"(\d{8,}(?:_\d+){1,2})_[01]\.jpg")


def refuse_place(folder: Path, settings: Settings, hint: str = "name a folder for the dataset alone") -> None:
    """Raise ExportError if `folder`, or a file, is where the daemon keeps its own files, or holds that place.

    Beside the database there may be other folders, such as the demo's dataset.
    """
    place, state = folder.resolve(), settings.state_folder.resolve()
    own = {
        state: "the state folder",
        settings.images.resolve(): "the daemon's images",
        settings.inbox_folder.resolve(): "the watch folder",
        settings.compile_cache_folder.resolve(): "the compile cache",
    }
    for kept, what in own.items():
        inside = kept in place.parents and kept != state
        if inside or place == kept or place in kept.parents:
            verb = "lies in" if inside else "is" if place == kept else "holds"
            raise ExportError(f"{folder} {verb} {what}", hint=hint)


class ExportFolder:
    """A folder that an export owns: its files there are replaced or removed, other files stay."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def claimed(cls, path: Path) -> Iterator["ExportFolder"]:
        """Own the folder, which is made where it is missing, alone until left. Raises ExportError and OSError.

        A mark says that it is ours. A folder that holds files but no mark is not.
        """
        try:
            durable.make_folder(path)
        except (FileExistsError, NotADirectoryError) as error:
            raise ExportError(f"{path}: a file is in the way", hint="name a folder") from error
        mark = path / MARK
        if not mark.exists() and (foreign := next(path.iterdir(), None)):
            raise ExportError(f"{path} holds {foreign.name}, which no export wrote", hint="name a new or empty folder")
        with mark.open("ab") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ExportError(f"{path}: another export is writing there", hint="wait until it has ended") from error
            if not held.tell():
                held.write(_MARK_TEXT)
                held.flush()
                os.fsync(held.fileno())
            for folder in (path, *(path / name for name in _IMAGE_FOLDERS)):
                durable.remove_unfinished(folder)
            yield cls(path)

    def withdraw(self) -> None:
        """Remove the lists and the sheet of the older export, before an image that they tell of is replaced."""
        durable.remove(self.path / name for name in _LISTS)

    def remove_rest(self, kept: Collection[str]) -> int:
        """Remove what an older export left and `kept` does not name; returns how many files that were.

        `kept` are the lists' names and the samples' paths.
        """
        rest = [self.path / name for name in _LISTS if name not in kept and (self.path / name).exists()]
        durable.remove(rest)  # first: nothing may tell of an image that is gone
        images = 0
        for name in _IMAGE_FOLDERS:
            folder = self.path / name
            for file in folder.iterdir() if folder.is_dir() else ():
                if (match := _IMAGE.fullmatch(file.name)) and f"{name}/{match[1]}" not in kept:
                    file.unlink()
                    images += 1
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        return len(rest) + images
