"""Reads an export's lists back as trainers do: what is asked, what is answered, and which images belong to it."""

import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet

from imgdiffd.export.instructions import find_records

IMAGE_ENDS = (".jpg", ".jpeg", ".png")
_ROWS = 64  # of a Parquet file at once, with their images
_CHAT = ("[[human]]: ", "[[gpt]]: ")  # Data-Juicer's


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record as a trainer sees it: its name, question and answer, and its images as names of files or as bytes.

    `marks` says how many times `<image>` must stand in the question: as often as there are images, or never.
    """

    name: str
    question: str
    answer: str
    images: tuple[str | bytes, ...]
    marks: int


def records_of(path: Path) -> Iterator[ReadRecord]:
    """The records of one file of an export; none where it holds no questions, as of COCO or a description.

    Raises ExportError, OSError and ValueError for a file that cannot be read.
    """
    match path.suffix:
        case ".json":
            yield from map(_asked, _of_list(path))
        case ".jsonl":
            with path.open(encoding="utf-8") as lines:
                yield from map(_asked, map(json.loads, lines))
        case ".parquet":
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_ROWS):
                yield from map(_asked, batch.to_pylist())
        case ".tar":
            yield from _of_archive(path)


def _of_list(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        if file.read(1) != b"[":  # a description of the data, or COCO's object of lists
            return
        file.seek(0)
        for found in find_records(file, path):
            yield json.loads(os.pread(file.fileno(), found.length, found.start))


def _of_archive(path: Path) -> Iterator[ReadRecord]:
    """Files of one name and several ends are one record."""
    with tarfile.open(path) as archive:
        for name, members in groupby(archive, key=lambda member: member.name.partition(".")[0]):
            record: dict[str, Any] = {"id": name}
            images = []
            for member in members:
                file = archive.extractfile(member)
                data = file.read() if file else b""
                if member.name.endswith(IMAGE_ENDS):
                    images.append(data)
                elif member.name.endswith(".json"):
                    record |= json.loads(data)
            asked = _asked(record)
            yield ReadRecord(name, asked.question, asked.answer, tuple(images), 0)


def _asked(record: Mapping[str, Any]) -> ReadRecord:
    images = tuple(_images(record))
    question, answer = _turns(record)
    marked = "messages" in record or ("conversations" in record and bool({"image", "images"} & record.keys()))
    return ReadRecord(str(record.get("id", record.get("path", ""))), question, answer, images, len(images) * marked)


def _turns(record: Mapping[str, Any]) -> tuple[str, str]:
    """The question and the answer; "" for what the record does not have."""
    match record:
        case {"conversations": [{"value": question}, {"value": answer}]}:
            return question, answer
        case {"messages": [asked, answered]} | {"prompt": [asked], "completion": [answered]}:
            return _content(asked), _content(answered)
        case {"text": str(text)} if _CHAT[1] in text:
            question, _, answer = text.removeprefix(_CHAT[0]).partition(_CHAT[1])
            return question, answer
    return str(record.get("question", "")), str(record.get("answer", ""))


def _content(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def _images(record: Mapping[str, Any]) -> Iterable[str | bytes]:
    """LLaVA's `image`, the lists of others, Parquet's structures, and both of the published dataset's `path`."""
    for key, value in record.items():
        if key == "path" and "conversations" in record:
            yield from (f"{value}_0.jpg", f"{value}_1.jpg")
        for each in value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else (value,):
            if key in {"image", "images"} and isinstance(each, str):
                yield each
            elif isinstance(each, Mapping) and isinstance(each.get("bytes"), bytes):
                yield each["bytes"]
