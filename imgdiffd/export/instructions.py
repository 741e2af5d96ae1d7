"""Finds the records of an instruction set by their bytes: a JSON list of any size, such as LLaVA and MGM read."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from imgdiffd.errors import ExportError, counted, first_line, visible

LONGEST_BYTES = 64 << 20  # a string that is never closed would otherwise take the rest of the file into memory
WANTED = "name an instruction set such as llava_v1_5_mix665k.json"
_CHUNK_BYTES = 4 << 20
_BLANK = " \t\n\r"
_BOM = "ï»¿"  # as Latin-1 shows it
_ESCAPE_BYTES = 6  # of \\u65e5, which may be what is cut off
_GZIP = "\x1f\x8b"
_TURNS = ("human", "gpt")


@dataclass(frozen=True, slots=True)
class Found:
    """A record, and which bytes of its file it is. Its strings are right only where they are ASCII."""

    start: int
    length: int
    record: dict[str, Any]


def find_records(
    file: BinaryIO, path: Path, progress: Callable[[float], object] = lambda share: None
) -> Iterator[Found]:
    """Every record of the list in `file`, in order, in memory of the longest one and some MiB.

    `progress` is told the share of the file that has been read. Raises ExportError for what is not a list of
    conversations, naming the record.
    """
    yield from _Scan(file, path, progress).records()


class _Scan:
    """The bytes are read as Latin-1, in which a character is a byte: JSON's own characters are ASCII."""

    def __init__(self, file: BinaryIO, path: Path, progress: Callable[[float], object]) -> None:
        self._file = file
        self._path = path
        self._progress = progress
        self._size = os.fstat(file.fileno()).st_size
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._before = 0  # bytes of the file before `_text`
        self._at = 0
        self._count = 0
        self._start = 0  # of the present record, in the file

    def records(self) -> Iterator[Found]:
        self._begin()
        mark = self._next()
        while mark != "]":
            self._count, self._start = self._count + 1, self._before + self._at
            yield self._record()
            mark = self._next()
            if mark not in {",", "]"}:
                raise self._wrong("a comma or the list's end should follow it" if mark else "the file ends behind it")
            if mark == ",":
                self._at += 1
                if self._next() == "]":
                    raise self._wrong("a comma but no record follows it")
        self._at += 1
        if self._next():
            raise ExportError(
                f"{self._path}: more than one list: something follows its end", hint="keep the list alone"
            )

    def _begin(self) -> None:
        self._read()
        if self._text.startswith(_GZIP):
            raise ExportError(f"{self._path} is compressed", hint="unpack it first: gunzip --keep FILE.gz")
        if self._text.startswith(_BOM):
            self._at = len(_BOM)
        mark = self._next()
        if mark != "[":
            hint = "of records one a line, `jq --slurp . FILE` makes a list" if mark == "{" else WANTED
            what = f"is not a JSON list, but begins with {mark!r}" if mark else "is empty"
            raise ExportError(f"{self._path} {what}", hint=hint)
        self._at += 1

    def _read(self) -> bool:
        """Read on, forgetting what has been passed; False at the end of the file."""
        chunk = self._file.read(_CHUNK_BYTES)
        self._text = self._text[self._at :] + chunk.decode("latin-1")
        self._before += self._at
        self._at = 0
        self._progress((self._before + len(self._text)) / max(self._size, 1))
        return bool(chunk)

    def _next(self) -> str:
        """The next character that is not blank, which `_at` then is at; "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _record(self) -> Found:
        value, end = self._value()
        raw = self._text[self._at : end]
        if not raw.isascii():
            try:
                raw.encode("latin-1").decode()
            except UnicodeDecodeError as error:
                raise self._wrong("it is not UTF-8", value) from error
        if wrong := _why_unusable(value):
            raise self._wrong(wrong, value)
        self._at = end
        return Found(self._start, len(raw), value)

    def _value(self) -> tuple[Any, int]:
        while True:
            try:
                return self._decode(self._text, self._at)
            except RecursionError as error:
                raise self._wrong("it is nested too deeply") from error
            except ValueError as error:  # broken JSON, or not all of it has been read, or a number of 5,000 digits
                if len(self._text) - self._at > LONGEST_BYTES:
                    raise self._wrong(
                        f"it is longer than {LONGEST_BYTES >> 20} MiB or broken: {first_line(error)}"
                    ) from error
                if not self._read():
                    raise self._wrong(_why_broken(error)) from error

    def _wrong(self, why: str, value: object = None) -> ExportError:
        name = f" (id {_shown(value['id'])})" if isinstance(value, dict) and "id" in value else ""
        return ExportError(
            f"{self._path}: record {self._count}{name}, from byte {self._start}: {why}",
            hint="a record has conversations of turns from human and gpt; fetch the file again if it was cut off",
        )


def _shown(name: object) -> str:
    return visible(str(name).encode("latin-1", "replace").decode("utf-8", "replace"))[:80]


def _why_broken(error: ValueError) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return f"broken JSON: {error}"
    cut_off = error.pos + _ESCAPE_BYTES > len(error.doc.rstrip(_BLANK)) or "Unterminated" in error.msg
    return "the file ends in the middle of it" if cut_off else f"broken JSON: {error.msg}"


def _why_unusable(value: object) -> str:
    """What keeps a trainer from reading the record as a conversation; "" where nothing does."""
    if not isinstance(value, dict):
        return f"it is not a record, but {type(value).__name__}"
    turns = value.get("conversations")
    if not isinstance(turns, list) or not turns:
        return "it has no conversations"
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str) or turn.get("from") not in _TURNS:
            return f"turn {number} of {counted(len(turns), 'turn')} is not text from human or gpt"
    return ""
