"""Reads caption files in Parquet, one batch of rows at a time."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from imgdiffd.captions.records import CAPTION_KEYS, ID_KEYS, Entry, make_record
from imgdiffd.captions.tables import column_of, unknown_columns
from imgdiffd.errors import InputError

_ROWS = 1024
_BUFFER_BYTES = 1 << 20


def _open(file: BinaryIO) -> "pq.ParquetFile":
    return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def read_parquet(file: BinaryIO) -> Iterator[Entry]:
    """The captions in the caption column, with rows numbered from 1. Raises InputError."""
    try:
        table = _open(file)
        names = table.schema_arrow.names
        caption, source = column_of(names, CAPTION_KEYS), column_of(names, ID_KEYS)
        if caption is None:
            raise unknown_columns(names)
        columns = [names[caption]] if source is None else [names[caption], names[source]]
        row = 0
        for batch in table.iter_batches(_ROWS, columns=columns, use_threads=False):
            captions = batch.column(columns[0])
            sources = batch.column(columns[-1]) if source is not None else None
            for index in range(batch.num_rows):
                row += 1
                source_id = "" if sources is None else sources[index].as_py()
                yield make_record(captions[index].as_py(), source_id, row)
    except UnicodeDecodeError as error:
        raise InputError(f"row {row}: not UTF-8", code="not_utf8", hint="write the column as UTF-8 text") from error
    except (pa.ArrowException, OSError) as error:
        reason = f"cannot be read as Parquet: {str(error)[:200]}"
        raise InputError(reason, code="bad_parquet", hint="write the whole file again") from error
