"""Shuffles our records into an instruction set: in an order that a seed decides, and every record byte for byte."""

import hashlib
import json
import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy

from imgdiffd import durable
from imgdiffd.errors import ExportError
from imgdiffd.export.instructions import WANTED, Found, find_records


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a mix holds: our records, how often each of them, and those of the instruction set."""

    own: int
    repeat: int
    others: int
    size_bytes: int

    @property
    def records(self) -> int:
        """All records of the mix."""
        return self.own * self.repeat + self.others


def mix(
    own: Path,
    others: Path,
    target: Path,
    *,
    repeat: int = 1,
    seed: int = 0,
    progress: Callable[[float], object] = lambda share: None,
) -> Mixed:
    """Write to `target` the records of the list `own`, `repeat` times, shuffled into those of the list `others`.

    Both are read twice, once for where each record lies and once to copy it, so that memory is 24 bytes a record. A
    record's place follows from the seed and its id or, in `others`, its number: equal lists and seeds give equal bytes
    on every machine, and another sample leaves the others in their order. A repeated record's id ends in its number
    (`-2`). `target` is replaced whole. `progress` is told the share that is done.

    Raises ExportError for a list that cannot be used, and for a record of `others` that has the id of one of ours;
    OSError.
    """
    with own.open("rb") as ours, opened(others) as theirs:
        mixing = _Mixing(ours, theirs, repeat, seed, progress)
        mixing.find(own, others)
        durable.write({target: mixing.copy})
    return Mixed(mixing.own, repeat, mixing.records - mixing.own * repeat, target.stat().st_size)


def opened(path: Path) -> BinaryIO:
    """The instruction set of that name, for reading. Raises ExportError."""
    try:
        if path.exists() and not path.is_file():
            raise ExportError(f"{path} is not a file, which can be read twice", hint=WANTED)
        return path.open("rb")
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}", hint=WANTED) from error


class _Mixing:
    """Where every record lies: ours first, each `repeat` times in a row, and what they are sorted by."""

    def __init__(
        self, ours: BinaryIO, theirs: BinaryIO, repeat: int, seed: int, progress: Callable[[float], object]
    ) -> None:
        self.own = 0
        self._ours = ours
        self._theirs = theirs
        self._repeat = repeat
        self._seed = seed
        self._progress = progress
        self._found_in = _state(theirs)
        self._keys, self._starts, self._lengths = array("Q"), array("Q"), array("Q")

    @property
    def records(self) -> int:
        return len(self._keys)

    def find(self, own: Path, others: Path) -> None:
        """Note every record of both lists."""
        ids = set()
        for found in find_records(self._ours, own):
            self.own += 1
            for copy in range(self._repeat):
                ids.add(called := _called(found.record["id"], copy))
                self._add(found, f"ours {called}")
        if not self.own:
            raise ExportError(f"there is no sample to mix into {others}", hint="see what there is with `imgdiffd jobs`")
        whole = find_records(self._theirs, others, lambda share: self._progress(share / 2))
        for number, found in enumerate(whole, 1):
            theirs = found.record.get("id")
            if isinstance(theirs, str) and theirs in ids:
                raise ExportError(
                    f"{others}: record {number} has the id {theirs}, as a sample of this export has",
                    hint="mix into the original instruction set, not into an older mix",
                )
            self._add(found, f"theirs {number}")

    def _add(self, found: Found, name: str) -> None:
        digest = hashlib.blake2b(f"{self._seed} {name}".encode(), digest_size=8).digest()
        self._keys.append(int.from_bytes(digest, "big"))
        self._starts.append(found.start)
        self._lengths.append(found.length)

    def copy(self, target: BinaryIO) -> None:
        """Write the list of all records, sorted. Raises ExportError if `others` was changed since they were found."""
        order = numpy.argsort(numpy.frombuffer(self._keys, numpy.uint64), kind="stable")
        between = b"[\n"
        for done, place in enumerate(order):
            target.write(between + self._record(int(place)))
            between = b",\n"
            if done % 1000 == 0:
                self._progress(0.5 + done / len(order) / 2)
        target.write(b"\n]\n")
        if _state(self._theirs) != self._found_in:
            raise ExportError(f"{self._theirs.name} was changed meanwhile", hint="export again")

    def _record(self, place: int) -> bytes:
        number, copy = divmod(place, self._repeat)
        ours = number < self.own
        file = self._ours if ours else self._theirs
        raw = os.pread(file.fileno(), self._lengths[place], self._starts[place])
        if not ours or not copy:
            return raw
        record = json.loads(raw)
        return json.dumps(record | {"id": _called(record["id"], copy)}, ensure_ascii=False).encode()


def _state(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _called(name: str, copy: int) -> str:
    """The id of the record's copy, which count from 0."""
    return f"{name}-{copy + 1}" if copy else name
