"""Deletes what a killed process left in the picture folder: temporary files, and pictures that no row names.

It owns the rule for what is an orphan; it does not know SQL, and it is told which pictures and which items count.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from imgdiffd.picture_files import TEMPORARY_PREFIX

_ITEM = re.compile(r"(\d+)-")


def orphans(root: Path, named: Collection[str], unfinished: Collection[int]) -> Iterator[Path]:
    """Files under `root` that nothing will ever read.

    `named` are the relative paths that rows hold. Pictures of `unfinished` items stay: their stage runs again and
    writes the same names. What is not named like ours is left alone.
    """
    for folder, _folders, files in os.walk(root):
        for name in files:
            path = Path(folder, name)
            if name.startswith(TEMPORARY_PREFIX):
                yield path
                continue
            match = _ITEM.match(name)
            if match and int(match[1]) not in unfinished and path.relative_to(root).as_posix() not in named:
                yield path


def sweep(root: Path, named: Collection[str], unfinished: Collection[int]) -> int:
    """Delete every orphan; returns how many. Call it before any worker starts: a living one's files are in the way."""
    count = 0
    for path in orphans(root, named, unfinished):
        path.unlink(missing_ok=True)
        count += 1
    return count
