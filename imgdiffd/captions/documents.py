"""Reads caption files that are one JSON document, of any size, in constant memory.

COCO annotations and Karpathy's splits of them, LLaVA's pre-training list, lists of anything that has a caption, and
objects of captions by name.
"""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import ijson

from imgdiffd.captions.lines import BOM
from imgdiffd.captions.records import CAPTION_KEYS, EXAMPLE, ID_KEYS, Entry, caption_keys, printable, records_of, shown
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem, CaptionRecord

MAX_DEPTH = 64
MAX_RECORD_BYTES = 8 << 20  # a larger record becomes a problem and is never built
MAX_TOKEN_BYTES = 8 << 20  # a longer string or number would have to be held whole in memory
_VALUE_BYTES = 100  # what a value takes beside its text
_READ_BYTES = 1 << 16

# Lists under these keys hold records whatever their first one looks like.
RECORD_LISTS = ("annotations", "data", "captions", "records", "samples", "items", "examples", "rows")
_NAME = re.compile(r"[\d./]")  # in the keys of an object of captions by image, unlike in those of other objects

_OPENING = ("start_map", "start_array")
_CLOSING = ("end_map", "end_array")

_Events = Iterator[tuple[str, Any]]


class _Bounded:
    """A file that stops with an error inside a string or number without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at_start = True
        self.silent_bytes = 0  # read since the parser last came to the end of a string, number or bracket

    def read(self, size: int) -> bytes:
        """Up to `size` bytes. Raises InputError where nothing ended within MAX_TOKEN_BYTES."""
        data = self._file.read(size)
        if self._at_start and size > 0:  # a read of nothing is how the parser tells bytes from text
            data, self._at_start = data.removeprefix(BOM), False
        if b"\0" in data:
            reason = "the file has a NUL byte, which JSON does not have"
            raise InputError(reason, code="nul_bytes", hint="save it as JSON in UTF-8")
        self.silent_bytes += len(data)
        if self.silent_bytes > MAX_TOKEN_BYTES:
            limit = f"a value is longer than {MAX_TOKEN_BYTES >> 20} MiB"
            raise InputError(limit, code="too_long", hint="a caption has at most 64 KiB")
        return data


def _events(file: BinaryIO) -> _Events:
    bounded = _Bounded(file)
    try:
        for event in ijson.basic_parse(bounded, use_float=True, buf_size=_READ_BYTES):
            bounded.silent_bytes = 0
            yield event
    except ijson.JSONError as error:
        what = error.args[0] if error.args else ""
        reason = (what.decode("utf-8", "replace") if isinstance(what, bytes) else str(what)).partition("\n")[0]
        if "UTF" in reason:
            raise InputError(f"the file is not UTF-8: {reason}", code="not_utf8", hint="save it as UTF-8") from error
        raise InputError(
            f"broken or cut-off JSON: {reason}", code="bad_json", hint="save the whole document again"
        ) from error
    except UnicodeDecodeError as error:
        reason = r"a text has half of a surrogate pair, such as \ud83d without the half behind it"
        raise InputError(
            reason, code="bad_unicode", hint="save it as JSON Lines, where that costs one record"
        ) from error
    except (ValueError, OverflowError) as error:
        reason = f"a number that cannot be read: {printable(str(error))}"
        raise InputError(reason, code="bad_json", hint="write numbers of at most 4300 digits") from error


def _unknown_shape(message: str) -> InputError:
    return InputError(message, code="unknown_shape", hint=f"write {EXAMPLE}; or name the key with --field")


def _skip(events: _Events, event: str) -> None:
    """Skip the rest of the value that `event` began."""
    depth = int(event in _OPENING)
    while depth:
        event, _ = next(events)
        depth += (event in _OPENING) - (event in _CLOSING)
        if depth > MAX_DEPTH:
            raise _unknown_shape(f"the JSON is nested deeper than {MAX_DEPTH}")


def _build(events: _Events, event: str, value: Any) -> tuple[Any, bool]:
    """The value that `event` began, and whether it was small enough to be built whole."""
    if event not in _OPENING:
        return value, True
    builder: Any = ijson.ObjectBuilder()
    builder.event(event, value)
    depth, size = 1, 0
    while depth:
        event, value = next(events)
        depth += (event in _OPENING) - (event in _CLOSING)
        size += _VALUE_BYTES + (len(value) if isinstance(value, str) else 0)
        if depth > MAX_DEPTH:
            raise _unknown_shape(f"the JSON is nested deeper than {MAX_DEPTH}")
        if size > MAX_RECORD_BYTES:
            builder = None
        if builder is not None:
            builder.event(event, value)
    return (None, False) if builder is None else (builder.value, True)


class _Document:
    """One document on its way: its events, how many records came out, and the field that a person named."""

    def __init__(self, events: _Events, field: str) -> None:
        self._events = events
        self._field = field
        self._number = 0
        self._found = False
        self._found_named = False

    def _record(self, event: str, value: Any, name: str = "") -> Iterator[Entry]:
        self._number += 1
        record, complete = _build(self._events, event, value)
        if complete:
            yield from records_of(record, self._number, self._field, name)
        else:
            message = f"the record is larger than {MAX_RECORD_BYTES >> 20} MiB"
            yield CaptionProblem(self._number, "too_long", message)

    def read_list(self, probe: bool = False, name: str = "") -> Iterator[Entry]:
        """The captions of a list whose opening bracket was read; none where `probe` and its first record has none.

        `name` is what records without an id of their own are called.
        """
        self._found |= not probe
        while True:
            event, value = next(self._events)
            if event == "end_array":
                return
            entries = self._record(event, value, name)
            if probe:
                entries = iter(found := list(entries))
                if not any(isinstance(entry, CaptionRecord) for entry in found):
                    self._number -= 1
                    _skip(self._events, "start_array")
                    return
                probe = False
            self._found = True
            yield from entries

    def read_object(self) -> Iterator[Entry]:
        """The captions of an object whose opening brace was read: in lists, by name, or its own."""
        own: dict[str, Any] = {}
        keys: list[str] = []
        while (pair := next(self._events))[0] == "map_key":
            key = pair[1]
            if len(keys) < 8:
                keys.append(key[:40])
            event, value = next(self._events)
            named = _NAME.search(key) is not None and key != self._field
            if event == "start_array":
                yield from self.read_list(probe=key not in RECORD_LISTS, name=key if named else "")
            elif named and (event == "start_map" or (event == "string" and not self._field)):
                yield from self._named(event, value, key)
            elif event not in _OPENING and key in (*CAPTION_KEYS, *ID_KEYS, self._field):
                own[key] = value
            else:
                _skip(self._events, event)
        if any(key in own for key in caption_keys(self._field)):
            self._found = True
            yield from records_of(own, self._number + 1, self._field)
        if not self._found and not self._found_named:
            raise _unknown_shape(f"the JSON object has no captions where they are looked for; its keys: {shown(keys)}")

    def _named(self, event: str, value: Any, name: str) -> Iterator[Entry]:
        """The captions of the image called `name`; none before the first image that has one."""
        entries = list(self._record(event, value, name))
        if self._found_named or any(isinstance(entry, CaptionRecord) for entry in entries):
            self._found_named = True
            yield from entries


def read_document(file: BinaryIO, field: str) -> Iterator[Entry]:
    """The captions of a document: a list, or an object with lists of records or with captions by name.

    Raises InputError.
    """
    events = _events(file)
    document = _Document(events, field)
    event, _ = next(events, ("", None))
    if event == "start_array":
        yield from document.read_list()
    elif event == "start_map":
        yield from document.read_object()
    else:
        raise _unknown_shape("the file is one JSON value that is neither a list nor an object")
    for _ in events:  # to the end, so that a document that is cut off or has something after it is noticed
        pass
