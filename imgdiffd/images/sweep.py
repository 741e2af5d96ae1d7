"""Finds and deletes files of the image folder that nothing wants: leftovers of a killed process, and what may go.

It owns what a file's name and age say; it does not know SQL, and what an item wants is `images.retention`'s rule.
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
    """The time as `folder`'s file system has it; takes no room there."""
    os.utime(folder)
    return folder.stat().st_mtime_ns


def folders(root: Path) -> list[tuple[Path, range]]:
    """The folders of images under `root`, each with the items whose images it may hold, in order."""
    found = [(path, items_of(path.name)) for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted((path, items) for path, items in found if items)


def superfluous(
    folder: Path, items: Mapping[int, ItemImages], keep: KeepImages, *, asked_ns: int, started_ns: int
) -> list[Path]:
    """The files in a folder of images that may be deleted; none where there is no such folder.

    `items` are all that may have images there, as the rows told after `asked_ns`. What no row names of an item that
    is done goes if it is older than that: what is newer may have got its row since. Images of unfinished items that
    no row names stay: their stage runs again and writes the same names. A temporary file goes if it is older than
    `started_ns`, before any process that may still be writing. What is not named like ours is left alone.
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
    """Those of the images under `root` that do not lie there, in order."""
    return [name for name in sorted(names) if not (root / name).exists()]


def _older(path: Path, than_ns: int) -> bool:
    try:
        return path.stat().st_mtime_ns < than_ns
    except FileNotFoundError:  # renamed into place since the folder was read
        return False
