"""TRL: prompt and completion, so that the loss covers the answer alone; the images are columns of their own."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow

from imgdiffd.export.formats.format import Format, Images, Target, question_of
from imgdiffd.export.formats.parquet import FOLDER, IMAGE, TEXT, ParquetShard, image_of
from imgdiffd.export.pictures import Picture
from imgdiffd.export.sample import Sample
from imgdiffd.export.shards import ShardWriter

_TURNS = pyarrow.list_(pyarrow.struct([("role", TEXT), ("content", TEXT)]))
_COLUMNS = {"id": TEXT, "images": pyarrow.list_(IMAGE), "prompt": _TURNS, "completion": _TURNS}


def _row(sample: Sample, pictures: Sequence[Picture], jpegs: Sequence[bytes], images: Images) -> Mapping[str, Any]:
    # TRL puts as many marks in front of the text as there are images: it must have none of its own.
    return {
        "id": sample.key,
        "images": list(map(image_of, pictures, jpegs)),
        "prompt": [{"role": "user", "content": question_of(sample, images)}],
        "completion": [{"role": "assistant", "content": sample.answer}],
    }


def _writer(target: Target) -> ShardWriter:
    return ShardWriter(target, FOLDER, ".parquet", partial(ParquetShard, columns=_COLUMNS), _row)


FORMAT = Format(
    "TRL's prompt and completion as Parquet, images inside: data/train-00000.parquet",
    _writer,
    images=("joined", "two"),
    files=False,
)
