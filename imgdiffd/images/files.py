"""The image folder: what its files are called, and writing them inside it."""

import errno
import os
import re
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from imgdiffd import durable

ITEMS_PER_FOLDER = 1000
_ITEM_STEM = re.compile(r"([1-9][0-9]{0,17})-[^/]*", re.ASCII)
_PAIR_STEM = re.compile(r"(\d+-\d+)-[12]")


def pair_paths(item: int, attempt: int) -> tuple[str, str]:
    """Where the two generated images of an item's attempt go, relative to the image folder."""
    stem = f"{folder_of(item)}/{item}-{attempt}"
    return f"{stem}-1.png", f"{stem}-2.png"


def folder_of(item: int) -> str:
    """The name of the folder that holds an item's images."""
    return f"{item // ITEMS_PER_FOLDER:06d}"


def items_of(folder: str) -> range:
    """The items whose images the folder of that name holds; an empty range if it is not one of ours."""
    if not folder.isdigit():
        return range(0)
    return range(int(folder) * ITEMS_PER_FOLDER, (int(folder) + 1) * ITEMS_PER_FOLDER)


def item_of(name: str) -> int | None:
    """The caption whose image `name` would be, relative to the image folder; None if no image has such a name."""
    folder, _, file = name.partition("/")
    match = _ITEM_STEM.match(file)
    return int(match[1]) if match and folder == folder_of(int(match[1])) else None


def sample_paths(image1: str, index: int) -> tuple[str, str]:
    """Where the left and the right image of region `index` go, beside its pair's first image.

    Raises ValueError if `image1` is not the name of a pair's image.
    """
    path = PurePosixPath(image1)
    match = _PAIR_STEM.fullmatch(path.stem)
    if match is None:
        raise ValueError(f"{image1} is not the name of a generated image")
    stem = f"{match[1]}-r{index}"
    return str(path.with_name(f"{stem}-left.png")), str(path.with_name(f"{stem}-right.png"))


def erased_path(source: str, index: int) -> str:
    """Where the pair's image `source` without its object `index` goes, beside it."""
    return _beside(source, f"e{index}")


def removal_paths(source: str, index: int) -> tuple[str, str]:
    """Where the pair's image `source` with and without its object `index`, both with a box, goes, beside it."""
    return _beside(source, f"e{index}-with"), _beside(source, f"e{index}-without")


def _beside(source: str, end: str) -> str:
    """Raises ValueError if `source` is not the name of a pair's image."""
    path = PurePosixPath(source)
    if _PAIR_STEM.fullmatch(path.stem) is None:
        raise ValueError(f"{source} is not the name of a generated image")
    return str(path.with_name(f"{path.stem}-{end}.png"))


def inside(root: Path, relative: str) -> Path:
    """The file that `relative` names under `root`. Raises ValueError if it would be elsewhere."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{relative!r} does not name a file inside the image folder")
    return root / path


def read_image(root: Path, name: str) -> tuple[bytes, str]:
    """The bytes of the image `name` below `root`, and a tag that changes with them.

    Neither its folder nor the file may be a symbolic link. Raises FileNotFoundError, and OSError for what is no file.
    """
    folder, _, file = name.partition("/")
    with ExitStack() as opened:
        place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, place)
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
        opened.callback(os.close, place)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe in its place holds nobody up
        image = opened.enter_context(os.fdopen(os.open(file, flags, dir_fd=place), "rb"))
        found = os.fstat(image.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        return image.read(), f"{found.st_mtime_ns:x}-{found.st_size:x}"


def write_whole(root: Path, files: Mapping[str, bytes]) -> None:
    """Put each file's bytes at its path under `root`, durably and in one go, as `durable.write` does.

    Writing the same again is harmless. Raises OSError, also where `root` is gone, which is never made here: where the
    daemon's folder was moved away, nothing may be written in its place. Raises ValueError for a path out of `root`.
    """
    targets = {inside(root, relative): data for relative, data in files.items()}
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the image folder is gone", str(root))
    for folder in {target.parent for target in targets}:
        durable.make_folder(folder)
    durable.write(targets)


def link_whole(root: Path, links: Mapping[str, str]) -> frozenset[str]:
    """Give images a second name each, durably: new name -> present one. Returns the present names that are not there.

    Both names last until both are deleted. Where the file system has no hard links, the image is copied. A new name
    that is there already is replaced. Raises OSError, and ValueError for a path out of `root`.
    """
    targets = {inside(root, new): inside(root, old) for new, old in links.items()}
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the image folder is gone", str(root))
    for folder in {target.parent for target in targets}:
        durable.make_folder(folder)
    absent = durable.link(targets)
    return frozenset(old for old in links.values() if root / old in absent)
