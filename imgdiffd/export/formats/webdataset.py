"""WebDataset: tar files in which a sample's images and facts stand side by side under one name."""

import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from imgdiffd.export.formats.format import Format, Images, Target
from imgdiffd.export.formats.parquet import facts_of
from imgdiffd.export.pictures import Picture
from imgdiffd.export.sample import Sample
from imgdiffd.export.shards import ShardWriter

FOLDER = "shards"
_ENDS: Mapping[Images, Sequence[str]] = {"two": ("left.jpg", "right.jpg"), "joined": ("jpg",)}


class _TarShard:
    """A tar file whose bytes follow from its samples: no times, no owners."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @property
    def size_bytes(self) -> int:
        return self._file.tell()

    def add(self, row: Mapping[str, Any], jpegs: Sequence[bytes]) -> None:
        facts = json.dumps(row["facts"], ensure_ascii=False).encode()
        for end, data in (*zip(row["ends"], jpegs, strict=True), ("json", facts)):
            member = tarfile.TarInfo(f"{row['facts']['id']}.{end}")
            member.size = len(data)
            # Not TarFile.addfile, which remembers every member.
            self._file.write(member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE))

    def close(self) -> None:
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))


def _row(sample: Sample, pictures: Sequence[Picture], jpegs: Sequence[bytes], images: Images) -> Mapping[str, Any]:
    return {"facts": facts_of(sample, images), "ends": _ENDS[images]}


def _writer(target: Target) -> ShardWriter:
    return ShardWriter(target, FOLDER, ".tar", _TarShard, _row)


FORMAT = Format(
    "WebDataset: tar files of images and JSON, shards/train-00000.tar",
    _writer,
    images=("two", "joined"),
    files=False,
)
