"""Reads caption files that are one JSON document, of any size, in constant memory.

COCO annotations, LLaVA's pre-training list, and lists of strings or objects.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

from imgdiffd.captions.lines import BOM
from imgdiffd.captions.records import Entry, record_of
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem

MAX_DEPTH = 64
MAX_RECORD_EVENTS = 100_000  # a larger record becomes a problem and is never built
MAX_TOKEN_BYTES = 16 << 20  # a longer string or number would have to be held whole in memory
_READ_BYTES = 1 << 16

_OPENING = ("start_map", "start_array")
_CLOSING = ("end_map", "end_array")


class _Bounded:
    """A file that stops with an error inside a string or number without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._since_quote = 0
        self._at_start = True

    def read(self, size: int) -> bytes:
        """Up to `size` bytes. Raises InputError where no string ended within MAX_TOKEN_BYTES."""
        data = self._file.read(size)
        if self._at_start and size > 0:  # a read of nothing is how the parser tells bytes from text
            data, self._at_start = data.removeprefix(BOM), False
        if b"\0" in data:
            raise InputError("the file has a NUL byte", code="nul_bytes", hint="save it as JSON in UTF-8")
        end = data.rfind(b'"')
        while end > 0 and data[end - 1] == ord("\\"):
            end = data.rfind(b'"', 0, end)
        self._since_quote = len(data) - end if end >= 0 else self._since_quote + len(data)
        if self._since_quote > MAX_TOKEN_BYTES:
            limit = f"a value is longer than {MAX_TOKEN_BYTES >> 20} MiB"
            raise InputError(limit, code="too_long", hint="a caption has at most 64 KiB")
        return data


def _events(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    try:
        yield from ijson.basic_parse(_Bounded(file), use_float=True, buf_size=_READ_BYTES)
    except ijson.JSONError as error:
        what = error.args[0] if error.args else ""
        reason = (what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)).partition("\n")[0]
        if "UTF" in reason:
            raise InputError(f"the file is not UTF-8: {reason}", code="not_utf8", hint="save it as UTF-8") from error
        raise InputError(
            f"broken or cut-off JSON: {reason}", code="bad_json", hint="save the whole document again"
        ) from error


def _unknown_shape(message: str) -> InputError:
    return InputError(message, code="unknown_shape", hint="write a list of captions, or COCO's object")


def _skip(events: Iterator[tuple[str, Any]], event: str) -> None:
    """Skip the rest of the value that `event` began."""
    depth = int(event in _OPENING)
    while depth:
        event, _ = next(events)
        depth += (event in _OPENING) - (event in _CLOSING)
        if depth > MAX_DEPTH:
            raise _unknown_shape(f"the JSON is nested deeper than {MAX_DEPTH}")


def _build(events: Iterator[tuple[str, Any]], event: str, value: Any) -> tuple[Any, bool]:
    """The value that `event` began, and whether it was small enough to be built whole."""
    if event not in _OPENING:
        return value, True
    builder = ijson.ObjectBuilder()
    builder.event(event, value)
    depth, count = 1, 0
    while depth:
        event, value = next(events)
        depth += (event in _OPENING) - (event in _CLOSING)
        count += 1
        if depth > MAX_DEPTH:
            raise _unknown_shape(f"the JSON is nested deeper than {MAX_DEPTH}")
        if count <= MAX_RECORD_EVENTS:
            builder.event(event, value)
        else:
            builder.value = None
    return builder.value, count <= MAX_RECORD_EVENTS


def _read_list(events: Iterator[tuple[str, Any]]) -> Iterator[Entry]:
    """The captions of a list whose opening bracket was read."""
    number = 0
    while True:
        event, value = next(events)
        if event == "end_array":
            return
        number += 1
        record, complete = _build(events, event, value)
        if complete:
            yield record_of(record, number)
        else:
            yield CaptionProblem(number, "too_long", f"the record has more than {MAX_RECORD_EVENTS} values")


def read_document(file: BinaryIO) -> Iterator[Entry]:
    """The captions of a document: a list, or an object with a list `annotations` as in COCO. Raises InputError."""
    events = _events(file)
    event, _ = next(events, ("", None))
    if event == "start_array":
        yield from _read_list(events)
    elif event == "start_map":
        found = False
        keys: list[str] = []
        while (pair := next(events))[0] == "map_key":
            event, _ = next(events)
            if pair[1] == "annotations" and event == "start_array":
                found = True
                yield from _read_list(events)
            else:
                keys.append(str(pair[1])[:40])
                _skip(events, event)
        if not found:
            shown = ", ".join(keys[:8]) or "no keys"
            raise _unknown_shape(f"the JSON object has {shown}, but no list `annotations`")
    else:
        raise _unknown_shape("the file is one JSON value that is neither a list nor an object")
    for _ in events:  # to the end, so that a document that is cut off or has something after it is noticed
        pass
