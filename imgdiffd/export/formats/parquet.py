"""Parquet with Hugging Face's features: every kind of sample in one table, with its images inside."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO

import pyarrow
from pyarrow import parquet

from imgdiffd.export.formats.format import Format, Images, Target, question_of
from imgdiffd.export.pictures import Picture
from imgdiffd.export.sample import Sample
from imgdiffd.export.shards import ShardWriter

FOLDER = "data"  # where `datasets` looks for splits by name
_GROUP_ROWS, _GROUP_BYTES = 100, 32 << 20  # a reader holds one row group
IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
TEXT = pyarrow.string()
Columns = Mapping[str, pyarrow.DataType]
_OF_BOTH: Columns = {
    "id": TEXT,
    "kind": TEXT,
    "question": TEXT,
    "answer": TEXT,
    "caption": TEXT,
    "caption2": TEXT,
    "text_left": TEXT,
    "text_right": TEXT,
    "noun_left": TEXT,
    "noun_right": TEXT,
    "original": TEXT,
    "box": pyarrow.list_(pyarrow.int32()),
    "width": pyarrow.int32(),
    "height": pyarrow.int32(),
    "profile": TEXT,
    "scores": TEXT,
    "reason": TEXT,
}
_COLUMNS: Mapping[Images, Columns] = {
    "two": {"id": TEXT, "left": IMAGE, "right": IMAGE, **_OF_BOTH},
    "joined": {"id": TEXT, "image": IMAGE, **_OF_BOTH},
}


def feature_of(kind: pyarrow.DataType) -> Any:
    """The type as `datasets` writes it into a file's metadata; a list of one is a list in every version of it."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pyarrow.types.is_list(kind):
        return [feature_of(kind.value_type)]
    if pyarrow.types.is_struct(kind):
        return {field.name: feature_of(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


def schema_of(columns: Columns) -> pyarrow.Schema:
    """The columns, and beside them what makes `datasets` show images and not bytes."""
    features = {name: feature_of(kind) for name, kind in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pyarrow.schema(list(columns.items()), metadata=metadata)


def image_of(picture: Picture, jpeg: bytes) -> dict[str, Any]:
    """An image as a cell of type IMAGE."""
    return {"bytes": jpeg, "path": picture.name.rpartition("/")[2]}


class ParquetShard:
    """A Parquet file in row groups of bounded size."""

    def __init__(self, file: BinaryIO, columns: Columns) -> None:
        self._file = file
        self._schema = schema_of(columns)
        plain = [name for name, kind in columns.items() if kind == TEXT]
        self._writer = parquet.ParquetWriter(file, self._schema, use_dictionary=plain, write_statistics=False)
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """What has been written, and what waits for its row group."""
        return self._file.tell() + self._bytes

    def add(self, row: Mapping[str, Any], jpegs: Sequence[bytes]) -> None:
        """Append a row, which holds these images."""
        self._rows.append(row)
        self._bytes += sum(map(len, jpegs))
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._bytes = [], 0


def facts_of(sample: Sample, images: Images) -> dict[str, Any]:
    """All that is known of a sample and is the same on every machine, but its images."""
    return {
        "id": sample.key,
        "kind": sample.kind,
        "question": question_of(sample, images),
        "answer": sample.answer,
        "caption": sample.caption,
        "caption2": sample.caption2,
        "text_left": sample.text_left,
        "text_right": sample.text_right,
        "noun_left": sample.noun_left,
        "noun_right": sample.noun_right,
        "original": sample.original,
        "box": list(sample.box),
        "width": sample.width,
        "height": sample.height,
        "profile": sample.profile,
        "scores": dict(sorted(sample.scores.items())),
        "reason": sample.reason,
    }


def _row(sample: Sample, pictures: Sequence[Picture], jpegs: Sequence[bytes], images: Images) -> Mapping[str, Any]:
    facts = facts_of(sample, images)
    columns = ("image",) if images == "joined" else ("left", "right")
    shown = map(image_of, pictures, jpegs)
    return {**facts, "scores": json.dumps(facts["scores"]), **dict(zip(columns, shown, strict=True))}


def _writer(target: Target) -> ShardWriter:
    shard = partial(ParquetShard, columns=_COLUMNS[target.images])
    return ShardWriter(target, FOLDER, ".parquet", shard, _row)


FORMAT = Format(
    "Parquet with Hugging Face's features, images inside: data/train-00000.parquet",
    _writer,
    images=("two", "joined"),
    files=False,
)
