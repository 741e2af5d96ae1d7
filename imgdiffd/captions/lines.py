"""Reads caption files line by line: plain text and JSON Lines."""

import json
from collections.abc import Iterator
from typing import BinaryIO

from imgdiffd.captions.records import EXAMPLE, MAX_CAPTION_BYTES, Entry, is_picture, make_record, records_of, too_long
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem

BOM = b"\xef\xbb\xbf"
MAX_JSON_BYTES = 1 << 20  # of a line: records often hold more than their caption
MAX_BLANK_LINES = 1_000_000
_SKIP_BYTES = 1 << 20


def read_lines(file: BinaryIO, limit_bytes: int = MAX_CAPTION_BYTES) -> Iterator[tuple[int, str | None]]:
    """Numbered lines with their line ends; None for one longer than `limit_bytes`, which is skipped.

    Raises InputError at the first line that is not UTF-8 or holds a NUL byte, and after MAX_BLANK_LINES: a thread that
    reads on without a caption cannot be stopped.
    """
    number = blank = 0
    while line := file.readline(limit_bytes + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if line.isspace() and (blank := blank + 1) > MAX_BLANK_LINES:
            reason = f"line {number}: more than {MAX_BLANK_LINES} blank lines"
            raise InputError(reason, code="mostly_unusable", hint=f"write {EXAMPLE}")
        if b"\0" in line:
            reason = f"line {number}: a NUL byte, which text does not have"
            raise InputError(reason, code="nul_bytes", hint=f"save it as text in UTF-8: {EXAMPLE}")
        if len(line) > limit_bytes and not line.endswith(b"\n"):
            while (rest := file.readline(_SKIP_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"line {number}: not UTF-8 at byte {error.start + 1}", code="not_utf8", hint="save it as UTF-8"
            ) from error


def read_text(file: BinaryIO) -> Iterator[Entry]:
    """One caption per line; blank lines are skipped. An image's name and a tab may stand before it, as in Flickr8k."""
    for number, line in read_lines(file):
        if line is None:
            yield too_long(number)
        elif line.strip():
            name, _, caption = line.partition("\t")
            yield make_record(caption, name, number) if is_picture(name) else make_record(line, "", number)


def read_json_lines(file: BinaryIO, field: str) -> Iterator[Entry]:
    """One JSON string or object per line; a line that is neither becomes a problem."""
    for number, line in read_lines(file, MAX_JSON_BYTES):
        if line is None:
            yield too_long(number, MAX_JSON_BYTES)
        elif line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield CaptionProblem(number, "bad_json", str(error)[:200])
            else:
                yield from records_of(value, number, field)
