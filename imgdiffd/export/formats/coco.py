"""COCO boxes: each pair's images without red boxes, and an annotation for every sample's box, by noun."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import BinaryIO

from imgdiffd import durable
from imgdiffd.export.formats.format import Format, Target
from imgdiffd.export.formats.lists import RecordList
from imgdiffd.export.pictures import Picture
from imgdiffd.export.sample import Sample, Split

NAMES: Mapping[Split, str] = {"train": "instances_train.json", "validation": "instances_validation.json"}
FOLDER = "images"  # not that of the other formats: these images have no red boxes
UNKNOWN = "object"  # the category of a box whose noun is not known


class _Split:
    """The lists of one file."""

    def __init__(self, target: Target) -> None:
        self.images = RecordList(target.folder.path)
        self.annotations = RecordList(target.folder.path)
        self.caption = ("", 0)  # kind and item of the sample at hand
        self.numbers: dict[str, int] = {}  # of this caption's images


class _CocoWriter:
    """An image that several samples of a caption share stands in the list once. Nouns are few: they are remembered."""

    def __init__(self, target: Target) -> None:
        self.names = (*NAMES.values(), f"{FOLDER}/")
        self._splits = {split: _Split(target) for split in NAMES}
        self._categories: dict[str, int] = {}
        self._caption = ("", 0)  # kind and item of the sample at hand
        self._called: dict[str, str] = {}  # this caption's images by what they are made of

    def pictures(self, sample: Sample) -> Sequence[Picture]:
        if self._caption != (sample.kind, sample.item):
            self._caption, self._called = (sample.kind, sample.item), {}
        found = []
        for side, plain in (("left", sample.plain_left), ("right", sample.plain_right)):
            if sample.kind == "replacement" or side == sample.original:  # what was erased has no box
                place = 0 if side == sample.original else 1
                name = self._called.setdefault(plain, f"{FOLDER}/{sample.key}_{place}.jpg")
                found.append(Picture(name, (plain,), size=(sample.width, sample.height)))
        return found

    def resume(self, identities: Iterable[tuple[Split, str]]) -> Mapping[Split, Sequence[str]]:
        return {}

    def add(self, sample: Sample, pictures: Sequence[Picture], jpegs: Sequence[bytes], identity: str) -> None:
        split = self._splits[sample.split]
        if split.caption != (sample.kind, sample.item):
            split.caption, split.numbers = (sample.kind, sample.item), {}
        nouns = {sample.plain_left: sample.noun_left, sample.plain_right: sample.noun_right}
        x1, y1, x2, y2 = sample.box
        for picture in pictures:
            if picture.name not in split.numbers:
                split.numbers[picture.name] = split.images.count + 1
                split.images.add(
                    {
                        "id": split.images.count + 1,
                        "file_name": picture.name,
                        "width": sample.width,
                        "height": sample.height,
                    }
                )
            category = nouns[picture.sources[0]] or UNKNOWN
            split.annotations.add(
                {
                    "id": split.annotations.count + 1,
                    "image_id": split.numbers[picture.name],
                    "category_id": self._categories.setdefault(category, len(self._categories) + 1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "sample": sample.key,
                }
            )

    def finish(self) -> Mapping[str, durable.Content]:
        used = {split: made for split, made in self._splits.items() if made.images.count or split == "train"}
        return {NAMES[split]: partial(self._write, made) for split, made in used.items()}

    def _write(self, made: _Split, file: BinaryIO) -> None:
        file.write(b'{"images": ')
        made.images.write(file)
        file.write(b', "annotations": ')
        made.annotations.write(file)
        file.write(b', "categories": ')
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        file.write(json.dumps(categories, ensure_ascii=False).encode() + b"}\n")

    def close(self) -> None:
        for made in self._splits.values():
            made.images.close()
            made.annotations.close()


FORMAT = Format(
    "COCO boxes by noun, on the images without red boxes: instances_train.json",
    _CocoWriter,
    images=("two",),
    trains=False,
)
