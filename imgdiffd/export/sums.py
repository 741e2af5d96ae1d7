"""The checksums of an export's files, in the form that `sha256sum --check` reads."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from imgdiffd import durable

NAME = "SHA256SUMS"
_BATCH = 256  # files that wait for a thread: all of them at once would be held in memory


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex digits, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(
    folder: Path,
    names: Iterable[str],
    known: Mapping[str, str],
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Write the checksums of `names`, files below `folder`, sorted by name; those in `known` are not read again.

    `progress` is told how many have been read. Raises OSError.
    """
    ordered = iter(sorted(names))

    def write(file: BinaryIO) -> None:
        done = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(islice(ordered, _BATCH)):
                for name, digest in zip(batch, pool.map(digest_of, batch), strict=True):
                    file.write(f"{digest}  {name}\n".encode())
                done += len(batch)
                progress(done)

    def digest_of(name: str) -> str:
        return known.get(name) or sha256(folder / name)

    durable.write({folder / NAME: write})
