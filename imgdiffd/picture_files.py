"""The picture folder: what its files are called, and writing them so that a crash leaves a whole file or none.

It owns names, temporary names and the order of syncs; it does not know pixels, stages or SQL.
"""

import os
import re
from pathlib import Path, PurePosixPath

TEMPORARY_PREFIX = ".tmp-"  # whatever bears it after a start was never finished, and may be deleted
_ITEMS_PER_FOLDER = 1000
_PAIR_STEM = re.compile(r"(\d+-\d+)-[12]")


def pair_paths(item: int, attempt: int) -> tuple[str, str]:
    """Where the two generated pictures of an item's attempt go, relative to the picture folder."""
    stem = f"{item // _ITEMS_PER_FOLDER:06d}/{item}-{attempt}"
    return f"{stem}-1.png", f"{stem}-2.png"


def sample_paths(image1: str, index: int) -> tuple[str, str]:
    """Where the left and the right picture of region `index` go, beside its pair's first picture.

    Raises ValueError where `image1` is not the name of a pair's picture.
    """
    path = PurePosixPath(image1)
    match = _PAIR_STEM.fullmatch(path.stem)
    if match is None:
        raise ValueError(f"{image1} is not the name of a generated picture")
    stem = f"{match[1]}-r{index}"
    return str(path.with_name(f"{stem}-left.png")), str(path.with_name(f"{stem}-right.png"))


def inside(root: Path, relative: str) -> Path:
    """The file that `relative` names under `root`. Raises ValueError where it would lie elsewhere."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{relative!r} does not name a file inside the picture folder")
    return root / path


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(root: Path, relative: str, data: bytes) -> None:
    """Put `data` at `relative` under `root`: synced and renamed into place, so it survives a power cut or never was.

    Writing the same bytes again is harmless. Raises OSError; a temporary file may then stay behind.
    """
    target = inside(root, relative)
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync_folder(target.parent.parent)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{target.name}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)
    _sync_folder(target.parent)
