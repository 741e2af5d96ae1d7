"""Reads caption files of every supported format as a stream of captions and problems, in constant memory."""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePath
from typing import BinaryIO

from imgdiffd.captions.documents import read_document
from imgdiffd.captions.lines import BOM, read_json_lines, read_text
from imgdiffd.captions.records import Entry
from imgdiffd.captions.tables import read_table
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem

__all__ = ["DEMO_CAPTIONS", "Entry", "read_open"]

DEMO_CAPTIONS = "demo_captions.txt"  # beside this module: the demo runs on it, the miniature models are judged by it

Reader = Callable[[BinaryIO], Iterator[Entry]]

MAX_EXCESS_PROBLEMS = 100  # a file with more than this many more problems than captions is not a caption file
_PEEK_BYTES = 1 << 16


def _read_parquet(file: BinaryIO) -> Iterator[Entry]:
    from imgdiffd.captions.parquet import read_parquet  # its import takes a second: only Parquet files pay for it

    return read_parquet(file)


def _read_json(file: BinaryIO) -> Iterator[Entry]:
    """A JSON document or JSON Lines, which often have the same ending."""
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
    """The reader for the ending of `name`, else for how the content starts."""
    known = _BY_ENDING.get(PurePath(name).suffix.lower())
    if known is not None:
        return known
    if start.startswith(b"PAR1"):
        return _read_parquet
    return _read_json if start.removeprefix(BOM).lstrip()[:1] in (b"[", b"{") else read_text


def read_open(file: BinaryIO, name: str) -> Iterator[Entry]:
    """The captions of an open, seekable file; `name` tells the format where its ending is known.

    A record that cannot be a caption is yielded as a CaptionProblem, and reading goes on. Raises InputError where the
    whole file is unusable: empty, not UTF-8, NUL bytes, broken JSON, an unknown shape, or hardly any caption in it;
    OSError where it cannot be read.
    """
    file.seek(0)
    start = file.read(_PEEK_BYTES)
    if not start.removeprefix(BOM).strip():
        if file.seek(0, os.SEEK_END) <= _PEEK_BYTES:
            raise InputError("the file is empty", code="empty_file", hint="write the captions into it, one a line")
    elif start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError("the file is UTF-16, not UTF-8", code="not_utf8", hint="save it as UTF-8")
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
        if problems > captions + MAX_EXCESS_PROBLEMS:
            raise _unusable(
                "mostly_unusable", f"{problems} of {captions + problems} records have no usable caption", first
            )
    if not captions:
        raise _unusable("no_captions", "no caption in the file", first)


def _unusable(code: str, what: str, first: CaptionProblem | None) -> InputError:
    example = f"; the first: record {first.line}, {first.message}" if first else ""
    return InputError(what + example, code=code, hint="write one caption a line, or a key `caption` in each record")
