"""The image folder: what its files are called, and writing them so that a crash leaves a whole file or none.

It owns names, temporary names and the order of syncs; it does not know pixels, stages or SQL.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

TEMPORARY_PREFIX = ".tmp-"  # whatever bears it after a start was never finished, and may be deleted
ITEMS_PER_FOLDER = 1000
_PAIR_STEM = re.compile(r"(\d+-\d+)-[12]")


def pair_paths(item: int, attempt: int) -> tuple[str, str]:
    """Where the two generated images of an item's attempt go, relative to the image folder."""
    stem = f"{folder_of(item)}/{item}-{attempt}"
    return f"{stem}-1.png", f"{stem}-2.png"


def folder_of(item: int) -> str:
    """The name of the folder that an item's images lie in."""
    return f"{item // ITEMS_PER_FOLDER:06d}"


def items_of(folder: str) -> range:
    """The items whose images lie in the folder of that name; an empty range where it is none of ours."""
    if not folder.isdigit():
        return range(0)
    return range(int(folder) * ITEMS_PER_FOLDER, (int(folder) + 1) * ITEMS_PER_FOLDER)


def sample_paths(image1: str, index: int) -> tuple[str, str]:
    """Where the left and the right image of region `index` go, beside its pair's first image.

    Raises ValueError where `image1` is not the name of a pair's image.
    """
    path = PurePosixPath(image1)
    match = _PAIR_STEM.fullmatch(path.stem)
    if match is None:
        raise ValueError(f"{image1} is not the name of a generated image")
    stem = f"{match[1]}-r{index}"
    return str(path.with_name(f"{stem}-left.png")), str(path.with_name(f"{stem}-right.png"))


def erased_path(source: str, index: int) -> str:
    """Where the image without object `index` of the pair's image `source` goes, beside it."""
    return _beside(source, f"e{index}")


def removal_paths(source: str, index: int) -> tuple[str, str]:
    """Where the boxed images with and without object `index` of the pair's image `source` go, beside it."""
    return _beside(source, f"e{index}-with"), _beside(source, f"e{index}-without")


def _beside(source: str, end: str) -> str:
    """Raises ValueError where `source` is not the name of a pair's image."""
    path = PurePosixPath(source)
    if _PAIR_STEM.fullmatch(path.stem) is None:
        raise ValueError(f"{source} is not the name of a generated image")
    return str(path.with_name(f"{path.stem}-{end}.png"))


def inside(root: Path, relative: str) -> Path:
    """The file that `relative` names under `root`. Raises ValueError where it would lie elsewhere."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{relative!r} does not name a file inside the image folder")
    return root / path


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(root: Path, files: Mapping[str, bytes]) -> None:
    """Put each file's bytes at its path under `root`: on return all survive a power cut; none is ever there in part.

    Every file is synced before it is renamed into place; a folder is synced once for all its files, since a sync can
    take as long as an image. Writing the same again is harmless. Raises OSError; nothing temporary stays behind, which
    on a full disk would keep it full.
    """
    targets = {relative: inside(root, relative) for relative in files}
    folders = dict.fromkeys(target.parent for target in targets.values())
    for folder in folders:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            _sync_folder(folder.parent)
    try:
        for relative, target in targets.items():
            with open(_temporary(target), "wb") as file:
                file.write(files[relative])
                file.flush()
                os.fsync(file.fileno())
        for target in targets.values():
            os.replace(_temporary(target), target)
    except OSError:
        for target in targets.values():
            _temporary(target).unlink(missing_ok=True)
        raise
    for folder in folders:
        _sync_folder(folder)


def _temporary(target: Path) -> Path:
    return target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{target.name}")
