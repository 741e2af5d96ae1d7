"""Reads caption files of columns: CSV and TSV."""

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from imgdiffd.captions.lines import read_lines
from imgdiffd.captions.records import CAPTION_KEYS, ID_KEYS, Entry, make_record, too_long
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem


def column_of(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    """The index of the first of `wanted` among the columns' names, whatever their case; None without one."""
    plain = [name.strip().lower() for name in names]
    return next((plain.index(key) for key in wanted if key in plain), None)


def unknown_columns(names: Sequence[str]) -> InputError:
    """The error for a table where none of `names` is known to hold captions."""
    shown = ", ".join(name[:40] for name in names[:8])
    return InputError(f"no caption column among {shown}", code="unknown_columns", hint="name the column `caption`")


class _Rows:
    """A csv reader over lines of limited length; `skipped` collects the longer ones.

    Quotes are read only in CSV: tab-separated captions often start with one that never closes.
    """

    def __init__(self, file: BinaryIO, delimiter: str) -> None:
        self.skipped: list[CaptionProblem] = []
        self.line = 0
        self._quoted = delimiter != "\t"
        self._reader = csv.reader(
            self._lines(file), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if self._quoted else csv.QUOTE_NONE
        )

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        for number, line in read_lines(file):
            self.line = number
            if line is None:
                self.skipped.append(too_long(number))
            else:
                yield line

    def __iter__(self) -> Iterator[list[str]]:
        try:
            for row in self._reader:
                yield row if self._quoted else [_unquoted(value) for value in row]
        except csv.Error as error:
            raise InputError(
                f"line {self.line}: {error}", code="bad_csv", hint="look for a quote that is never closed"
            ) from error


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1].replace('""', '"')
    return value


def _delimiter_of(file: BinaryIO, default: str) -> str:
    """The delimiter with which the first line names a caption column, else `default`."""
    _, header = next(read_lines(file), (0, ""))
    file.seek(0)
    for delimiter in dict.fromkeys((default, ",", ";", "\t")):
        names = [name.strip().strip('"') for name in (header or "").split(delimiter)]
        if column_of(names, CAPTION_KEYS) is not None:
            return delimiter
    return default


def read_table(file: BinaryIO, default_delimiter: str) -> Iterator[Entry]:
    """The captions of a table: its caption column or, without a header, its only column. Raises InputError."""
    rows = _Rows(file, _delimiter_of(file, default_delimiter))
    caption, source, width = -1, None, 0
    for row in rows:
        yield from rows.skipped
        rows.skipped.clear()
        if not row:
            continue
        if caption < 0:
            found, source, width = column_of(row, CAPTION_KEYS), column_of(row, ID_KEYS), len(row)
            if found is None and width > 1:
                raise unknown_columns(row)
            caption = found or 0
            if found is not None:
                continue
        if not caption < len(row) <= width:
            yield CaptionProblem(rows.line, "bad_columns", f"the row has {len(row)} columns, the first line {width}")
        else:
            source_id = row[source] if source is not None and source < len(row) else ""
            yield make_record(row[caption], source_id, rows.line)
    yield from rows.skipped
