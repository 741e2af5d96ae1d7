"""The program that reads one Parquet file, in a process of its own with bounded memory: file in, lines of JSON out.

A few kB of Parquet can unpack to more than any memory, and pyarrow keeps what it once had. A line is `[row, caption,
id]`, or `[row, code, message, null]` for a problem; the last one is `{"rows": number}`, or, where the whole file is
unusable, `{"refused": [message, code, hint]}`.
"""

import json
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from typing import Any, BinaryIO

from imgdiffd.captions.growth import refuse_growth
from imgdiffd.captions.records import CAPTION_KEYS, ID_KEYS, Entry, captions_in, printable, records_of, shown
from imgdiffd.captions.tables import column_of, repeated_column, unknown_columns
from imgdiffd.errors import InputError, first_line
from imgdiffd.job import CaptionProblem, CaptionRecord

MAX_DATA_BYTES = 512 << 20  # of this process; a sixth of it is pyarrow itself
_ROWS = 1024
_BUFFER_BYTES = 1 << 20
_TALK = "conversations"


class _NotUtf8:
    """Stands for a text that cannot be decoded."""


def _is_text(kind: Any) -> bool:
    """Whether the Arrow type `kind` is text."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_list(kind: Any) -> bool:
    """Whether the Arrow type `kind` is a list of anything."""
    from pyarrow import types

    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_list_view(kind)
    )


def _may_hold_captions(kind: Any) -> bool:
    """Whether it is text, bytes, which older writers take for text, or a list of anything."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _may_hold_captions(kind.value_type)
    return bool(_is_list(kind) or types.is_binary(kind) or types.is_large_binary(kind) or _is_text(kind))


def _columns(schema: Any, field: str) -> tuple[str, str | None]:
    """The paths of the caption's column and of the id's, which need not be there. Raises InputError."""
    from pyarrow import types

    names = list(schema.names)
    found = column_of(names, (field, field.partition(".")[0]) if field else (*CAPTION_KEYS, _TALK))
    if found is None:
        raise unknown_columns(names, field)
    name, kind = names[found], schema.types[found]
    if names.count(name) > 1:
        raise repeated_column(name)
    path = field if types.is_struct(kind) and field.startswith(f"{name}.") else name
    if path == name and not _may_hold_captions(kind):
        reason = f"the column {shown([name])} holds {shown([kind])}, not text"
        raise InputError(reason, code="unknown_columns", hint="name the column with the captions with --field")
    usable = [  # an image may be called like an id: its bytes are never read
        each if each != name and names.count(each) == 1 and (_is_text(of) or types.is_integer(of)) else ""
        for each, of in zip(names, schema.types, strict=True)
    ]
    source = column_of(usable, ID_KEYS)
    return path, None if source is None else names[source]


def _number_of_values(column: Any) -> int:
    """How many values the rows of a column have, those of lists and their records included."""
    from pyarrow import types

    kind = column.type
    if types.is_struct(kind):
        return len(column) + sum(_number_of_values(part) for part in column.flatten())
    if _is_list(kind):
        return len(column) + _number_of_values(column.flatten())
    return len(column)


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return _NotUtf8


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value  # refused as a caption


def _entries(value: Any, source_id: Any, row: int, path: str) -> Iterator[Entry]:
    value = _decoded(value)
    if value is _NotUtf8:
        yield CaptionProblem(row, "bad_unicode", "the caption is not UTF-8")
    elif isinstance(value, dict):
        yield from records_of({path.partition(".")[0]: value}, row, path, source_id)
    elif path == _TALK:
        yield from records_of({_TALK: value}, row, "", source_id)
    else:
        yield from captions_in(value, source_id, row)


def read_rows(file: BinaryIO, field: str) -> Iterator[Entry]:
    """The captions in the caption column, with rows numbered from 1. Raises InputError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        file_bytes = file.seek(0, os.SEEK_END)
        refuse_growth(file_bytes, records=table.metadata.num_rows)
        caption, source = _columns(table.schema_arrow, field)
        columns = [caption] if source is None else [caption, source]
        row = values_read = 0
        for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
            column = batch.column(caption.partition(".")[0] if caption not in batch.schema.names else caption)
            values_read += _number_of_values(column)
            refuse_growth(file_bytes, records=values_read)
            values = _values(column)
            ids = [""] * len(values) if source is None else _values(batch.column(source))
            for value, source_id in zip(values, ids, strict=True):
                row += 1
                yield from _entries(value, _decoded(source_id), row, caption)
    except UnicodeDecodeError as error:
        raise _unreadable("a column's name is not UTF-8") from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        raise _unreadable(printable(str(error))) from error


def _unreadable(reason: str) -> InputError:
    return InputError(f"cannot be read as Parquet: {reason}", code="bad_parquet", hint="write the whole file again")


def _last_words(file: BinaryIO, field: str) -> dict[str, Any]:
    """Write every entry to the standard output; returns what is to be said at the end."""
    count = 0
    try:
        for entry in read_rows(file, field):
            count += 1
            if isinstance(entry, CaptionRecord):
                line: list[object] = [entry.line, entry.text, entry.source_id]
            else:
                line = [entry.line, entry.code, entry.message, None]
            sys.stdout.write(json.dumps(line) + "\n")
    except InputError as error:
        return {"refused": [error.message, error.code, error.hint]}
    except MemoryError:
        reason = f"it needs more than {MAX_DATA_BYTES >> 20} MiB of memory to be unpacked"
        return {"refused": [reason, "too_long", "write it again with smaller pages and row groups"]}
    except BrokenPipeError:
        raise
    except Exception as error:
        traceback.print_exc()
        return {"refused": [f"cannot be read as Parquet: {printable(first_line(error))}", "bad_parquet", "report it"]}
    return {"rows": count}


def main() -> None:
    """Read the Parquet file on descriptor 0; the argument is the field."""
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the others reserve far more than they use
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, allowed = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MAX_DATA_BYTES if allowed == resource.RLIM_INFINITY else min(MAX_DATA_BYTES, allowed)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with os.fdopen(0, "rb", closefd=False) as file:
        said = _last_words(file, sys.argv[1])
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the daemon has read enough, or is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
