"""Reads caption files of columns: CSV, TSV, and text whose first line names a caption column."""

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from imgdiffd.captions.lines import read_lines, read_text
from imgdiffd.captions.records import CAPTION_KEYS, ID_KEYS, Entry, caption_keys, make_record, shown, too_long
from imgdiffd.errors import InputError
from imgdiffd.job import CaptionProblem

_DELIMITERS = (",", ";", "\t", "|")


def column_of(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    """The index of the first of `wanted` among the columns' names, whatever their case; None without one."""
    plain = [name.strip().lower() for name in names]
    return next((plain.index(key.lower()) for key in wanted if key.lower() in plain), None)


def unknown_columns(names: Sequence[str], field: str) -> InputError:
    """The error for a table where none of `names` is known to hold captions."""
    missing = f"no column {shown([field])}" if field else "no caption column"
    hint = f"name the column `caption`, or say which one it is: `imgdiffd submit --field {shown(names[:1]) or 'NAME'}`"
    return InputError(f"{missing} among {shown(names)}", code="unknown_columns", hint=hint)


def repeated_column(name: str) -> InputError:
    """The error for a table with several columns of the name that captions have."""
    hint = "rename all but the one with the captions"
    return InputError(f"several columns are called {shown([name])}", code="unknown_columns", hint=hint)


class _Rows:
    """A csv reader over lines of limited length; `skipped` collects the longer ones.

    Quotes are not read where tabs separate the columns: such captions often start with one that never closes. Elsewhere
    such a quote would make one caption of all that is left of the file, which is refused.
    """

    def __init__(self, file: BinaryIO, delimiter: str) -> None:
        self.skipped: list[CaptionProblem] = []
        self.line = 0
        self._row: list[str] = []  # the lines of the row that is being read
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
                self._row.append(line)
                yield line
        if self._quoted and len(self._row) > 1 and sum(line.count('"') for line in self._row) % 2:
            first = self.line - len(self._row) + 1
            raise _bad_csv(f"line {first}: a quote is opened and never closed", "close it, or double it in a text")

    def __iter__(self) -> Iterator[list[str]]:
        try:
            for row in self._reader:
                self._row.clear()
                yield row if self._quoted else [_unquoted(value) for value in row]
        except csv.Error as error:
            if "new-line" in str(error):
                what = f"line {self.line}: a carriage return amid the line"
                raise _bad_csv(what, "end lines with LF or CRLF") from error
            raise _bad_csv(f"line {self.line}: {error}", "look for a quote that is never closed") from error


def _bad_csv(reason: str, hint: str) -> InputError:
    return InputError(reason, code="bad_csv", hint=hint)


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1].replace('""', '"')
    return value


def _header_of(file: BinaryIO, delimiters: Sequence[str], field: str) -> tuple[str, Sequence[str]] | None:
    """The delimiter with which the first line names a caption column, and the columns' names; None where none does."""
    _, first = next(read_lines(file), (0, ""))
    file.seek(0)
    for delimiter in dict.fromkeys(delimiters):
        names = [name.strip().strip('"') for name in (first or "").split(delimiter)]
        if column_of(names, caption_keys(field)) is not None:
            return delimiter, names
    return None


def read_lines_or_table(file: BinaryIO, field: str) -> Iterator[Entry]:
    """The captions of plain text, one a line, or of a table whose first line names several columns."""
    found = _header_of(file, _DELIMITERS, field)
    if found is not None and len(found[1]) > 1:
        return read_table(file, field, found[0])
    if field.isdecimal():
        return read_table(file, field, "\t")
    if field:
        reason = f"plain text, whose first line names no column {shown([field])}"
        raise InputError(reason, code="unknown_columns", hint="leave --field out: each line is a caption")
    return read_text(file)


def _column(field: str, width: int) -> int | None:
    """The index that `field` names as a number from 1 on."""
    return int(field) - 1 if field.isdecimal() and 0 < int(field[:9]) <= width else None


def read_table(file: BinaryIO, field: str, default_delimiter: str) -> Iterator[Entry]:
    """The captions of a table: its caption column or, without a header, its only column. Raises InputError.

    `field` names the column, or is its number from 1 on where the table has no header.
    """
    found = _header_of(file, (default_delimiter, *_DELIMITERS), field)
    rows = _Rows(file, found[0] if found else default_delimiter)
    caption, source, width = -1, None, 0
    for row in rows:
        yield from rows.skipped
        rows.skipped.clear()
        if not row:
            continue
        if caption < 0:
            named, width = column_of(row, caption_keys(field)), len(row)
            source = column_of(row, ID_KEYS)
            numbered = _column(field, width) if named is None else None
            if named is None and numbered is None and (field or width > 1):
                raise unknown_columns(row, field)
            if named is not None and row.count(row[named]) > 1:
                raise repeated_column(row[named])
            caption = named or numbered or 0
            if named is not None or (numbered is not None and column_of(row, (*CAPTION_KEYS, *ID_KEYS)) is not None):
                continue
        if not caption < len(row) <= width:
            yield CaptionProblem(rows.line, "bad_columns", f"the row has {len(row)} columns, the first line {width}")
        else:
            source_id = row[source] if source is not None and source < len(row) else ""
            yield make_record(row[caption], source_id, rows.line)
    yield from rows.skipped
