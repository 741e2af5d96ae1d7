"""Caption files that are one JSON document: COCO annotations, LLaVA's pre-training list, lists of strings or objects.

It owns walking a document of any size in constant memory; it does not know what a caption must be.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

from imgdiffd.captions.lines import BOM
from imgdiffd.captions.records import CaptionProblem, Entry, record_of
from imgdiffd.errors import InputError

MAX_DEPTH = 64
MAX_RECORD_EVENTS = 100_000  # a record beyond it is a problem and never built
MAX_TOKEN_BYTES = 16 << 20  # a string or number beyond it would have to be held whole
_READ_BYTES = 1 << 16

_OPENING = ("start_map", "start_array")
_CLOSING = ("end_map", "end_array")


class _Bounded:
    """A file that refuses to go on through one endless string or number."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._since_quote = 0
        self._at_start = True

    def read(self, size: int) -> bytes:
        """Up to `size` bytes. Raises InputError where no string has ended for MAX_TOKEN_BYTES."""
        data = self._file.read(size)
        if self._at_start and size > 0:  # a read of nothing is how the parser tells bytes from text
            data, self._at_start = data.removeprefix(BOM), False
        if b"\0" in data:
            raise InputError("a NUL byte", code="nul_bytes", hint="give JSON in UTF-8")
        end = data.rfind(b'"')
        while end > 0 and data[end - 1] == ord("\\"):
            end = data.rfind(b'"', 0, end)
        self._since_quote = len(data) - end if end >= 0 else self._since_quote + len(data)
        if self._since_quote > MAX_TOKEN_BYTES:
            raise InputError(f"a value longer than {MAX_TOKEN_BYTES >> 20} MiB", code="too_long")
        return data


def _events(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    try:
        yield from ijson.basic_parse(_Bounded(file), use_float=True, buf_size=_READ_BYTES)
    except ijson.JSONError as error:
        what = error.args[0] if error.args else ""
        reason = (what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)).partition("\n")[0]
        if "UTF" in reason:
            raise InputError(f"not UTF-8: {reason}", code="not_utf8", hint="save it as UTF-8") from error
        raise InputError(f"broken or cut-off JSON: {reason}", code="bad_json", hint="write the whole file") from error


def _skip(events: Iterator[tuple[str, Any]], event: str) -> None:
    """Pass over the rest of the value that `event` began."""
    depth = int(event in _OPENING)
    while depth:
        event, _ = next(events)
        depth += (event in _OPENING) - (event in _CLOSING)
        if depth > MAX_DEPTH:
            raise InputError(f"nested deeper than {MAX_DEPTH}", code="unknown_shape")


def _build(events: Iterator[tuple[str, Any]], event: str, value: Any) -> tuple[Any, bool]:
    """The value that `event` began, and whether it was small enough to be built."""
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
            raise InputError(f"nested deeper than {MAX_DEPTH}", code="unknown_shape")
        if count <= MAX_RECORD_EVENTS:
            builder.event(event, value)
        else:
            builder.value = None
    return builder.value, count <= MAX_RECORD_EVENTS


def _read_list(events: Iterator[tuple[str, Any]]) -> Iterator[Entry]:
    """The captions of a list whose start was read."""
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
            yield CaptionProblem(number, "too_long", f"a record of more than {MAX_RECORD_EVENTS} values")


def read_document(file: BinaryIO) -> Iterator[Entry]:
    """The captions of a document: a list, or an object with the list `annotations`, as COCO has it."""
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
            raise InputError(f"an object with {shown}, without a list `annotations`", code="unknown_shape")
    else:
        raise InputError("one JSON value that is neither a list nor an object", code="unknown_shape")
    for _ in events:  # to the end, so that a cut or an appended document is noticed
        pass
