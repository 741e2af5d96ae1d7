"""The folder that a dataset goes to: whether it may be written, and what an older export left there."""

import fcntl
import hashlib
import os
import re
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy

from imgdiffd import durable
from imgdiffd.errors import ExportError
from imgdiffd.export import contact_sheet, release, removal
from imgdiffd.settings import Settings

MARK = ".imgdiffd-export"
STAGED = ".imgdiffd-unfinished"  # what gathers there is taken up by the next export
_OLD = ".imgdiffd-old-"
_MARK_TEXT = (
    b"`imgdiffd export` owns the files that it wrote to this folder: the next export replaces or removes them.\n"
)
# What exports of the published format have always owned, and no mark names.
_RELEASED = frozenset(
    {release.JSON_NAME, removal.JSON_NAME, contact_sheet.NAME, f"{release.IMAGE_FOLDER}/", f"{removal.IMAGE_FOLDER}/"}
)
_Hashes = numpy.ndarray[tuple[int], numpy.dtype[numpy.uint64]]
_IMAGE = re.compile(r"(\d{8,}(?:_\d+){1,2}_[01]|[0-9a-f]{32}(_[01])?)\.jpg")
_SHARD = re.compile(r"(train|validation)-\d{5,}\.(parquet|tar)")


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
    """A folder that an export owns: its files there are replaced or removed, other files stay.

    `removed` counts the files of an older export that were removed.
    """

    def __init__(self, path: Path, mark: BinaryIO) -> None:
        self.path = path
        self.removed = 0
        self._mark = mark
        lines = mark.read().decode("utf-8", "replace").splitlines()[1:]
        self._owned = {*_RELEASED, *lines}
        self._named: set[str] = set()
        self._later: frozenset[str] = frozenset()
        self._images = array("Q")  # a hash of each image's name: 8 bytes, however many there are

    @classmethod
    @contextmanager
    def claimed(cls, path: Path) -> Iterator["ExportFolder"]:
        """Own the folder, which is made where it is missing, alone until left. Raises ExportError and OSError.

        A mark says that it is ours, and names what exports wrote. A folder that holds files but no mark is not.
        """
        try:
            durable.make_folder(path)
        except (FileExistsError, NotADirectoryError) as error:
            raise ExportError(f"{path}: a file is in the way", hint="name a folder") from error
        mark = path / MARK
        if not mark.exists() and (foreign := next(path.iterdir(), None)):
            raise ExportError(f"{path} holds {foreign.name}, which no export wrote", hint="name a new or empty folder")
        with open(os.open(mark, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ExportError(f"{path}: another export is writing there", hint="wait until it has ended") from error
            folder = cls(path, held)
            folder._note(folder._owned)
            folder._recover()
            yield folder

    def own(self, names: Iterable[str], later: Iterable[str] = ()) -> None:
        """Note what is written to the folder from now on: files, and folders, which end in /.

        Files that come `later` than those of `publish`, since they tell of them, go at once where an older export
        wrote them. Raises ExportError if there is something of such a name that no export wrote.
        """
        self._later = frozenset(later)
        names = {*names, *self._later}
        if foreign := [name for name in sorted(names - self._owned) if (self.path / name).exists()]:
            raise ExportError(
                f"{self.path} holds {foreign[0]}, which no export wrote", hint="name a new or empty folder"
            )
        self._owned |= names
        self._named |= names
        self._note(self._owned)
        durable.remove(self.path / name for name in self._later)

    def disown(self, name: str) -> None:
        """Take a name back: nothing was written there, and what an older export wrote is not wanted."""
        self._named.discard(name)

    def _note(self, names: Iterable[str]) -> None:
        """Have the mark name these files and folders."""
        text = _MARK_TEXT + "".join(f"{name}\n" for name in sorted(set(names) - _RELEASED)).encode()
        self._mark.seek(0)
        if self._mark.read() != text:
            os.pwrite(self._mark.fileno(), text, 0)  # first, so that a kill leaves a name too many rather than too few
            os.ftruncate(self._mark.fileno(), len(text))
            os.fsync(self._mark.fileno())

    def _recover(self) -> None:
        """Take up what a kill left: files that were never finished, and a folder whose new one did not come."""
        for name in ("", *(name for name in self._owned if name.endswith("/")), STAGED):
            durable.remove_unfinished(self.path / name)
        for old in self.path.glob(f"{_OLD}*"):
            current = self.path / old.name.removeprefix(_OLD)
            if current.exists():
                self._remove_old(old, current)
            else:
                old.rename(current)

    def add_images(self, images: Mapping[str, durable.Content]) -> None:
        """Write images, by name. Before one is replaced, the lists of the older export go, which tell of it."""
        for parent in {(self.path / name).parent for name in images}:
            parent.mkdir(exist_ok=True)
        due = {self.path / name: content for name, content in images.items()}
        if any(target.exists() for target in due):
            durable.remove(self.path / name for name in self._owned if not name.endswith("/"))
        durable.write(due)

    def keep(self, image: str) -> None:
        """Note that this image belongs to the dataset."""
        self._images.append(_hash(image))

    def swap(self, staged: Path, name: str) -> None:
        """Put the folder `staged` in the place of the folder `name`, whose files that no export wrote move into it."""
        current, old = self.path / name, self.path / f"{_OLD}{name}"
        if current.exists():
            current.rename(old)
        durable.move(staged, current)
        if old.exists():
            self._remove_old(old, current)

    def _remove_old(self, old: Path, current: Path) -> None:
        for file in list(old.iterdir()):
            if _SHARD.fullmatch(file.name):
                self.removed += not (current / file.name).exists()
                file.unlink()
            else:
                file.rename(current / file.name)
        old.rmdir()

    def publish(self, files: Mapping[str, durable.Content]) -> None:
        """Write the files that tell of the images; then remove what an older export left, its lists first."""
        durable.write({self.path / name: content for name, content in files.items()})
        kept = {name for name in self._named if name.endswith("/") or name in files or name in self._later}
        older = [self.path / name for name in sorted(self._owned - kept) if not name.endswith("/")]
        older = [path for path in older if path.exists()]
        durable.remove(older)
        self.removed += len(older)
        images = numpy.sort(numpy.frombuffer(self._images, numpy.uint64))
        for name in sorted(self._owned):
            if name.endswith("/") and (self.path / name).is_dir():
                self._sweep(name, images if name in kept else None)
        shutil.rmtree(self.path / STAGED, ignore_errors=True)
        # A folder that holds files of a user's stays ours, so that a later export may write there again.
        self._note(kept | {name for name in self._owned if name.endswith("/") and (self.path / name).is_dir()})

    def files(self) -> list[str]:
        """The files of this export that are there, by name below the folder; those of a folder in order."""
        found = [name for name in sorted(self._named) if not name.endswith("/") and (self.path / name).is_file()]
        for name in sorted(self._named):
            if name.endswith("/") and (self.path / name).is_dir():
                there = sorted(os.listdir(self.path / name))
                found += (f"{name}{file}" for file in there if _IMAGE.fullmatch(file) or _SHARD.fullmatch(file))
        return found

    def _sweep(self, name: str, kept: _Hashes | None) -> None:
        """Remove from a folder what exports wrote there, but of the folder of this export the images that it keeps."""
        with os.scandir(self.path / name) as files:
            for file in files:
                ours = _IMAGE.fullmatch(file.name) or (kept is None and _SHARD.fullmatch(file.name))
                if ours and (kept is None or not _holds(kept, _hash(f"{name}{file.name}"))):
                    os.unlink(file)
                    self.removed += 1
        with os.scandir(self.path / name) as files:
            empty = next(files, None) is None
        if empty:
            (self.path / name).rmdir()


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _holds(ordered: _Hashes, value: int) -> bool:
    place = int(numpy.searchsorted(ordered, numpy.uint64(value)))
    return place < len(ordered) and int(ordered[place]) == value
