"""Deletes what a killed process left in the picture folder: temporary files, and pictures that no row names.

It owns the rule for what is an orphan; it does not know SQL, and it is told which pictures and which items count.
"""

import re
from collections.abc import Collection
from pathlib import Path

from imgdiffd.picture_files import TEMPORARY_PREFIX, items_of

_ITEM = re.compile(r"(\d+)-")


def folders(root: Path) -> list[tuple[Path, range]]:
    """The folders of pictures under `root`, each with the items whose pictures it may hold, in order."""
    found = [(path, items_of(path.name)) for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return sorted((path, items) for path, items in found if items)


def sweep(folder: Path, named: Collection[str], unfinished: Collection[int], before_ns: int) -> int:
    """Delete every orphan in a folder of pictures that is older than `before_ns`; returns how many.

    `named` are the files that rows hold, relative to the folder's parent. Pictures of `unfinished` items stay: their
    stage runs again and writes the same names. What is newer belongs to somebody alive, whatever the rows said when
    they were read; what is not named like ours is left alone.
    """
    count = 0
    for path in folder.iterdir():
        if _is_orphan(path, named, unfinished) and path.stat().st_mtime_ns < before_ns:
            path.unlink(missing_ok=True)
            count += 1
    return count


def _is_orphan(path: Path, named: Collection[str], unfinished: Collection[int]) -> bool:
    if path.name.startswith(TEMPORARY_PREFIX):
        return True
    match = _ITEM.match(path.name)
    if match is None or int(match[1]) in unfinished:
        return False
    return f"{path.parent.name}/{path.name}" not in named
