"""Keeps columns in files beside the database, a file for each range of captions, and trusts none of them unchecked."""

import json
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from imgdiffd import durable
from imgdiffd.choosing.columns import PARTS, SCORE, Array, Columns, Table, length
from imgdiffd.choosing.gathering import STAGES, STATES, gather

FORMAT = 1  # of the files: raised with every change of what a column means
CAPTIONS = 2048  # whose numbers make one file
_STALE_S = 3600  # a temporary file of that age is a killed process's
_END = ".npz"


class Cache:
    """The files in `folder` that hold columns of the database `instance`."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._folder = folder
        self._header = json.dumps([FORMAT, CAPTIONS, instance, *STAGES, *STATES])

    def read(self, number: int) -> Columns | None:
        """The columns in file `number`; None where there is none, or none of ours that is whole.

        Every array has a checksum in the file. What it says of captions may be out of date: the caller compares marks.
        """
        try:
            with open(self._folder / f"{number:06d}{_END}", "rb") as file:
                found = np.load(file, allow_pickle=False)
                arrays = {name: found[name] for name in found.files} if isinstance(found, NpzFile) else {}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError):
            return None  # a file of any sort may lie there; it is written anew
        if "header" not in arrays or str(arrays["header"]) != self._header:
            return None
        columns = _columns(arrays)
        return columns if _is_sound(columns) else None

    def write(self, number: int, columns: Columns) -> None:
        """Put `columns` into file `number`, whole or not at all. Raises OSError."""
        arrays = {
            f"{name}/{key}": column for name in ("items", *PARTS) for key, column in getattr(columns, name).items()
        } | {"header": np.array(self._header), "reasons": np.array(columns.reasons, dtype=str)}
        self._folder.mkdir(exist_ok=True)
        durable.write({self._folder / f"{number:06d}{_END}": lambda file: np.savez(file, **arrays)})

    def sweep(self, numbers: range) -> None:
        """Delete files of other numbers, and what killed processes have left. Raises OSError."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if path.name.startswith(durable.TEMPORARY_PREFIX):
                with suppress(FileNotFoundError):  # another process has just finished it
                    if path.stat().st_mtime < time.time() - _STALE_S:
                        path.unlink()
            elif path.suffix == _END and path.stem.isdigit() and int(path.stem) not in numbers:
                path.unlink(missing_ok=True)


def _columns(arrays: Mapping[str, Array]) -> Columns:
    tables: dict[str, Table] = {name: {} for name in ("items", *PARTS)}
    for name, column in arrays.items():
        table, _, key = name.partition("/")
        if key:
            tables.setdefault(table, {})[key] = column
    reasons = arrays.get("reasons", np.array([], dtype=str))
    return Columns(**{name: tables[name] for name in ("items", *PARTS)}, reasons=tuple(reasons.tolist()))


def _is_sound(columns: Columns) -> bool:
    """Whether these are columns as `gather` makes them: their names, types and lengths, and what counts into what."""
    pattern = gather((), (), {})
    for name in ("items", *PARTS):
        found, wanted = getattr(columns, name), getattr(pattern, name)
        extra = found.keys() - wanted.keys()
        if not wanted.keys() <= found.keys() or not all(key.startswith(SCORE) for key in extra):
            return False
        kinds = [(each.dtype, each.shape[1:]) for each in (wanted.get(key, np.zeros(0)) for key in found)]
        if kinds != [(each.dtype, each.shape[1:]) for each in found.values()]:
            return False
        if len({len(each) for each in found.values()}) != 1:
            return False
        codes = found.get("reason", np.zeros(0, dtype=np.int16))
        if ((codes < 0) | (codes >= len(columns.reasons))).any():
            return False
    counts = [columns.items[f"n_{part}"] for part in PARTS]
    return (
        columns.reasons[:1] == ("",)
        and bool((np.diff(columns.items["item"]) > 0).all())
        and all((count >= 0).all() for count in counts)
        and [int(count.sum()) for count in counts] == [length(getattr(columns, part)) for part in PARTS]
    )
