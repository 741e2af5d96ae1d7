"""Reads caption files of every supported format as a stream of captions and problems, in constant memory."""

import json
import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import PurePath
from typing import BinaryIO

from imgdiffd.captions.documents import read_document
from imgdiffd.captions.growth import refuse_growth
from imgdiffd.captions.kinds import COMPRESSED_ENDINGS, PARQUET, PEEK_BYTES, refuse_other_kinds, unpacked
from imgdiffd.captions.lines import BOM, read_json_lines
from imgdiffd.captions.parquet import read_parquet
from imgdiffd.captions.records import EXAMPLE, Entry
from imgdiffd.captions.tables import read_lines_or_table, read_table
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem

__all__ = ["DEMO_CAPTIONS", "ENDINGS", "Entry", "has_lines", "is_caption_name", "read_open"]

DEMO_CAPTIONS = "demo_captions.txt"  # beside this module: the demo runs on it, the miniature models are judged by it

Reader = Callable[[BinaryIO, str], Iterator[Entry]]

MAX_EXCESS_PROBLEMS = 100  # a file with more than this many more problems than captions is not a caption file


def _read_json(file: BinaryIO, field: str) -> Iterator[Entry]:
    """A JSON document or JSON Lines, which often have the same ending."""
    first, _, rest = file.read(PEEK_BYTES).removeprefix(BOM).strip().partition(b"\n")
    file.seek(0)
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return read_document(file, field)
    return read_json_lines(file, field) if rest.strip() else read_document(file, field)


_BY_ENDING: dict[str, Reader] = {
    ".json": _read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": partial(read_table, default_delimiter=","),
    ".tsv": partial(read_table, default_delimiter="\t"),
    ".parquet": read_parquet,
    ".txt": read_lines_or_table,
}


ENDINGS = tuple(_BY_ENDING)


def _plain_name(name: str) -> str:
    """The name without the ending of a compressed file."""
    return next((name[: -len(end)] for end in COMPRESSED_ENDINGS if name.lower().endswith(end)), name)


def is_caption_name(name: str) -> bool:
    """Whether the name's ending is that of a caption file, compressed or not."""
    return PurePath(_plain_name(name)).suffix.lower() in _BY_ENDING


def has_lines(name: str) -> bool:
    """Whether records of a file of this name are counted in lines; in a JSON document and Parquet they are not."""
    return PurePath(_plain_name(name)).suffix.lower() not in (".json", ".parquet")


def _reader_of(name: str, start: bytes) -> Reader:
    """The reader for the ending of `name`, else for how the content starts."""
    known = _BY_ENDING.get(PurePath(name).suffix.lower())
    if known is not None:
        return known
    return _read_json if start.removeprefix(BOM).lstrip()[:1] in (b"[", b"{") else read_lines_or_table


def _opened(file: BinaryIO, name: str, field: str) -> Iterator[Entry]:
    content = unpacked(file)
    file = content or file
    start = file.read(PEEK_BYTES)
    file.seek(0)
    if len(start) < PEEK_BYTES and not start.removeprefix(BOM).strip():
        raise InputError("the file is empty", code="empty_file", hint="write the captions into it, one a line")
    if start.startswith(PARQUET):
        if content is not None:
            hint = "unpack it: Parquet is compressed inside"
            raise InputError(
                "the file is compressed Parquet, of which the end must be read first", code="bad_parquet", hint=hint
            )
        return read_parquet(file, field)
    refuse_other_kinds(start)
    reader = _reader_of(_plain_name(name), start)
    if reader is not _read_json and b"\r" in start and b"\n" not in start:
        hint = "end them with LF or CRLF: `tr '\\r' '\\n'` does it"
        raise InputError("its lines end with a carriage return alone", code="bad_line_ends", hint=hint)
    return reader(file, field)


def read_open(file: BinaryIO, name: str, field: str = "") -> Generator[Entry]:
    """The captions of an open, seekable file; `name` tells the format where its ending is known.

    `field` is the key or column with the captions; without it the usual names are looked for. gzip and zstd are
    unpacked on the way. Parquet needs a file with a descriptor, since another process reads it.

    A record that cannot be a caption is yielded as a CaptionProblem, and reading goes on. Raises InputError where the
    whole file is unusable: empty, not UTF-8, NUL bytes, broken JSON, an unknown shape, hardly any caption in it, or far
    more than fits into its size; OSError where it cannot be read.
    """
    captions = problems = text_bytes = 0
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    first = None
    for entry in _opened(file, name, field):
        if isinstance(entry, CaptionProblem):
            problems += 1
            first = first or entry
        else:
            captions += 1
            text_bytes += len(entry.text)
        refuse_growth(file_bytes, unpacked_bytes=text_bytes, records=captions + problems)
        yield entry
        if problems > captions + MAX_EXCESS_PROBLEMS:
            raise _unusable(
                "mostly_unusable", f"{problems} of {captions + problems} records have no usable caption", first
            )
    if not captions:
        raise _unusable("no_captions", "no caption in the file", first)


def _unusable(code: str, what: str, first: CaptionProblem | None) -> InputError:
    example = f"; the first: record {first.line}, {first.message}" if first else ""
    return InputError(what + example, code=code, hint=f"write {EXAMPLE}; or name the key or column with --field")
