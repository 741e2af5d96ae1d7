"""Reads caption files of every supported format as a stream of captions and problems, in constant memory.

It owns recognising the format and refusing files that are none; it does not know jobs or the database.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import BinaryIO

from imgdiffd.captions.documents import read_document
from imgdiffd.captions.lines import BOM, read_json_lines, read_text
from imgdiffd.captions.records import CaptionProblem, CaptionRecord, Entry
from imgdiffd.captions.tables import read_table
from imgdiffd.errors import InputError

__all__ = ["DEMO_CAPTIONS", "CaptionProblem", "CaptionRecord", "Entry", "read_captions", "read_open"]

DEMO_CAPTIONS = "demo_captions.txt"  # beside this module: what the demo runs on and the miniature models are judged by

Reader = Callable[[BinaryIO], Iterator[Entry]]

PATIENCE = 100  # a file with this many more problems than captions is not a caption file
_PEEK_BYTES = 1 << 16


def _read_parquet(file: BinaryIO) -> Iterator[Entry]:
    from imgdiffd.captions.parquet import read_parquet  # a second's import that only Parquet files cost

    return read_parquet(file)


def _read_json(file: BinaryIO) -> Iterator[Entry]:
    """A document or, as many write under the same ending, JSON Lines."""
    first, _, rest = file.read(_PEEK_BYTES).removeprefix(BOM).strip().partition(b"\n")
    file.seek(0)
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return read_document(file)
    return read_json_lines(file) if rest.strip() else read_document(file)


_BY_ENDING: dict[str, Reader] = {
    ".json": _read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": partial(read_table, default_delimiter=","),
    ".tsv": partial(read_table, default_delimiter="\t"),
    ".parquet": _read_parquet,
    ".txt": read_text,
}


def _reader_of(name: str, start: bytes) -> Reader:
    """By the name's ending, else by how the content starts."""
    known = _BY_ENDING.get(PurePath(name).suffix.lower())
    if known is not None:
        return known
    if start.startswith(b"PAR1"):
        return _read_parquet
    return _read_json if start.removeprefix(BOM).lstrip()[:1] in (b"[", b"{") else read_text


def read_open(file: BinaryIO, name: str) -> Iterator[Entry]:
    """The captions of an open, seekable file; `name` tells the format where its ending is known.

    A record that cannot be a caption comes as a CaptionProblem and the rest goes on. Raises InputError where the file
    as a whole is of no use: empty, not UTF-8, NUL bytes, broken JSON, an unknown shape, or hardly any caption in it.
    """
    file.seek(0)
    start = file.read(_PEEK_BYTES)
    if not start.removeprefix(BOM).strip():
        if file.seek(0, os.SEEK_END) <= _PEEK_BYTES:
            raise InputError("the file is empty", code="empty_file")
    elif start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("UTF-16, not UTF-8", code="not_utf8", hint="save it as UTF-8")
    file.seek(0)
    captions = problems = 0
    first = None
    for entry in _reader_of(name, start)(file):
        if isinstance(entry, CaptionProblem):
            problems += 1
            first = first or entry
        else:
            captions += 1
        yield entry
        if problems > captions + PATIENCE:
            raise _useless("mostly_unusable", f"{problems} problems in {captions + problems} records", first)
    if not captions:
        raise _useless("no_captions", "no caption in the file", first)


def _useless(code: str, what: str, first: CaptionProblem | None) -> InputError:
    example = f"; the first: record {first.line}, {first.message}" if first else ""
    return InputError(what + example, code=code, hint="docs/captions.md lists the formats")


def read_captions(path: Path) -> Iterator[Entry]:
    """As `read_open`, of a file by its path. Raises InputError also where it cannot be opened or read."""
    try:
        with path.open("rb") as file:
            yield from read_open(file, path.name)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", code="unreadable") from error
