"""Finds and deletes the files of the image folder that nothing wants, and what a killed process left there.

What an item wants is the rule in `images.retention`.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from imgdiffd.durable import TEMPORARY_PREFIX
from imgdiffd.images.files import items_of
from imgdiffd.images.retention import ItemImages, named, unfinished, wanted
from imgdiffd.settings import KeepImages

_ITEM = re.compile(r"(\d+)-")


def now_ns(folder: Path) -> int:
    """The time by the clock of the file system of `folder`; takes up no room there."""
    os.utime(folder)
    return folder.stat().st_mtime_ns


def folders(root: Path) -> list[tuple[Path, range]]:
    """The folders of images under `root`, in order, each with the items whose images it may hold."""
    found = [(path, items_of(path.name)) for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted((path, items) for path, items in found if items)


def superfluous(
    folder: Path, items: Mapping[int, ItemImages], keep: KeepImages, *, asked_ns: int, started_ns: int
) -> list[Path]:
    """The files in a folder of images that may be deleted; none if there is no such folder.

    `items` are all that may have images there, as their rows were after `asked_ns`. An image that no row names goes if
    its item is done and it is older than that: a newer one may have got its row since. It stays while its item is
    unfinished, whose stage will run again and write the same name. A temporary file goes if it is older than
    `started_ns`, the start of the first process that may still be writing. Files with other names are left alone.
    """
    known = {number: (named(item), wanted(item, keep), unfinished(item)) for number, item in items.items()}
    doomed = []
    for file in os.listdir(folder) if folder.is_dir() else ():
        if file.startswith(TEMPORARY_PREFIX):
            if _older(folder / file, started_ns):
                doomed.append(folder / file)
        elif match := _ITEM.match(file):
            names, stay, open_ = known.get(int(match[1]), (frozenset(), frozenset(), False))
            name = f"{folder.name}/{file}"
            if name not in stay and (name in names or (not open_ and _older(folder / file, asked_ns))):
                doomed.append(folder / file)
    return doomed


def delete(paths: Iterable[Path]) -> None:
    """Delete these files; some may be gone already."""
    for path in paths:
        path.unlink(missing_ok=True)


def missing(root: Path, names: Collection[str]) -> list[str]:
    """Those of `names` that do not exist under `root`, in order."""
    return [name for name in sorted(names) if not (root / name).exists()]


def _older(path: Path, than_ns: int) -> bool:
    try:
        return path.stat().st_mtime_ns < than_ns
    except FileNotFoundError:  # renamed into place since the folder was read
        return False
