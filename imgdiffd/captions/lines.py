"""Caption files of lines: plain text and JSON Lines.

It owns reading lines within a bound, whatever a file holds; it does not know what a caption must be.
"""

import json
from collections.abc import Iterator
from typing import BinaryIO

from imgdiffd.captions.records import MAX_CAPTION_BYTES, CaptionProblem, Entry, make_record, record_of, too_long
from imgdiffd.errors import InputError

BOM = b"\xef\xbb\xbf"
_SKIP_BYTES = 1 << 20


def read_lines(file: BinaryIO, limit: int = MAX_CAPTION_BYTES) -> Iterator[tuple[int, str | None]]:
    """Numbered lines with their ends, as text; None for one longer than `limit` bytes, which is skipped unread.

    Raises InputError at the first line that is not UTF-8 or holds a NUL byte.
    """
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if b"\0" in line:
            raise InputError(f"line {number}: a NUL byte", code="nul_bytes", hint="give text in UTF-8")
        if len(line) > limit and not line.endswith(b"\n"):
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
    """A caption a line; blank lines are nothing."""
    for number, line in read_lines(file):
        if line is None:
            yield too_long(number)
        elif line.strip():
            yield make_record(line, "", number)


def read_json_lines(file: BinaryIO) -> Iterator[Entry]:
    """A JSON string or object a line; a line that is neither is a problem of its own."""
    for number, line in read_lines(file):
        if line is None:
            yield too_long(number)
        elif line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield CaptionProblem(number, "bad_json", str(error)[:200])
            else:
                yield record_of(value, number)
