"""The one way in which files are written: each whole or not at all, and safe from a power cut on return.

A file gathers under a temporary name beside its own, is synced, and is renamed over what was there. Syncing its folder
then makes the new name itself durable.
"""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".tmp-"  # a file so named that is older than every running process was never finished

_NO_LINKS = frozenset({errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})

Content = bytes | str | Callable[[BinaryIO], object]


def write(files: Mapping[Path, Content]) -> None:
    """Write every file: bytes, text (as UTF-8), or whatever a callback writes into the open file.

    A process killed meanwhile leaves each file as it was or as it is to be. All are synced before the first is renamed,
    and they appear in the order of `files`; each folder is synced once, since a sync can take as long as an image.
    Raises OSError, or what a callback raises, and leaves nothing temporary behind, which would keep a full disk full.
    """
    temporaries = {target: target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{target.name}") for target in files}
    try:
        for target, content in files.items():
            with open(temporaries[target], "wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for target, temporary in temporaries.items():
            os.replace(temporary, target)
    except BaseException:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise
    for folder in dict.fromkeys(target.parent for target in files):
        sync(folder)


def move(finished: Path, target: Path) -> None:
    """Rename a file that gathered under a name of its own, such as a download, over `target`. Raises OSError."""
    sync(finished)
    os.replace(finished, target)
    sync(target.parent)


def link(links: Mapping[Path, Path]) -> set[Path]:
    """Give each present file (the value) another name (the key), or copy it where there are no hard links.

    Returns the present files that are not there. A file under a new name is replaced. Raises OSError.
    """
    absent: set[Path] = set()
    copied: dict[Path, Content] = {}
    for new, present in links.items():
        try:
            new.unlink(missing_ok=True)
            os.link(present, new)
        except FileNotFoundError:
            absent.add(present)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if present.exists():
                copied[new] = present.read_bytes()
            else:
                absent.add(present)
    write(copied)
    for folder in dict.fromkeys(new.parent for new in links):
        sync(folder)
    return absent


def remove(files: Iterable[Path]) -> None:
    """Remove those of these files that are there, so that a power cut does not bring them back. Raises OSError."""
    there = [file for file in files if file.exists()]
    for file in there:
        file.unlink(missing_ok=True)
    for folder in dict.fromkeys(file.parent for file in there):
        sync(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed left in `folder`, while no other writes there. Raises OSError."""
    with suppress(FileNotFoundError), os.scandir(folder) as files:
        for file in files:  # one by one: a dataset's folder holds hundreds of thousands
            if file.name.startswith(TEMPORARY_PREFIX):
                os.unlink(file)


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it where they are missing. Raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Have what was written to the file, or the names in the folder, survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
