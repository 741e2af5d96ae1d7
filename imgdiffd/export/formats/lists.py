"""Datasets that are a list of records beside a folder of images: the shape of most trainers' formats."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from imgdiffd import durable
from imgdiffd.export.formats.format import IMAGE_FOLDER, Format, Images, Target, pictures_of
from imgdiffd.export.pictures import Picture
from imgdiffd.export.sample import Sample, Split

Record = Callable[[Sample, Sequence[str], Images], Mapping[str, Any]]


class RecordList:
    """A list that grows outside memory, in an unnamed file beside the dataset that no kill can leave behind."""

    def __init__(self, folder: Path, *, lines: bool = False, indent: int | None = None) -> None:
        self.count = 0
        self._lines = lines
        self._indent = indent
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by `close`

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        text = json.dumps(record, ensure_ascii=False, indent=self._indent)
        if self._lines:
            self._file.write(f"{text}\n".encode())
        else:
            text = text.replace("\n", "\n ") if self._indent else text
            between = ",\n" if self.count else "[\n"
            self._file.write(f"{between}{' ' if self._indent else ''}{text}".encode())
        self.count += 1

    def write(self, file: BinaryIO) -> None:
        """Write the whole list: JSON, or one record a line."""
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)
        if not self._lines:
            file.write(b"\n]\n" if self.count else b"[]\n")

    def close(self) -> None:
        """Forget it."""
        self._file.close()


class ListWriter:
    """One list for each split. `extra` makes further small JSON files of the splits' names and counts."""

    def __init__(
        self,
        target: Target,
        *,
        record: Record,
        names: Mapping[Split, str],
        extra: Callable[[Mapping[str, int]], Mapping[str, Any]],
        extra_names: Sequence[str],
    ) -> None:
        self.names = (*names.values(), *extra_names, f"{IMAGE_FOLDER}/")
        self._images = target.images
        self._record = record
        self._extra = extra
        self._called = names
        self._lists = {
            split: RecordList(target.folder.path, lines=name.endswith(".jsonl")) for split, name in names.items()
        }

    def pictures(self, sample: Sample) -> Sequence[Picture]:
        """One joined image or two, called by the sample's key."""
        return pictures_of(sample, self._images)

    def resume(self, identities: Iterable[tuple[Split, str]]) -> Mapping[Split, Sequence[str]]:
        """Nothing: images that are there are not made again, and a list is quickly written."""
        return {}

    def add(self, sample: Sample, pictures: Sequence[Picture], jpegs: Sequence[bytes], identity: str) -> None:
        """Append the sample's record to its split's list."""
        names = [picture.name for picture in pictures]
        marked = {"reason": sample.reason} if sample.reason else {}
        self._lists[sample.split].add({**self._record(sample, names, self._images), **marked})

    def finish(self) -> Mapping[str, durable.Content]:
        """The train list, even an empty one, that of validation if it has any, and what else belongs to them."""
        written = {split: each for split, each in self._lists.items() if each.count or split == "train"}
        counts = {self._called[split]: each.count for split, each in written.items()}
        files: dict[str, durable.Content] = {self._called[split]: each.write for split, each in written.items()}
        for name, content in self._extra(counts).items():
            files[name] = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        return files

    def close(self) -> None:
        """Close the lists."""
        for each in self._lists.values():
            each.close()


def _no_more(_counts: Mapping[str, int]) -> Mapping[str, Any]:
    return {}


def list_format(
    about: str,
    record: Record,
    name: str,
    *,
    images: tuple[Images, ...] = ("joined",),
    extra: Callable[[Mapping[str, int]], Mapping[str, Any]] = _no_more,
    extra_names: Sequence[str] = (),
) -> Format:
    """The row of a format whose lists are called `name` and, for validation, the same with `_validation`."""
    stem, _, end = name.rpartition(".")
    names: Mapping[Split, str] = {"train": name, "validation": f"{stem}_validation.{end}"}

    writer = partial(ListWriter, record=record, names=names, extra=extra, extra_names=extra_names)
    return Format(about, writer, images)
