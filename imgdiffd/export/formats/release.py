"""The published Img-Diff dataset to the letter, both products: other people's loaders read it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imgdiffd import durable
from imgdiffd.export import contact_sheet, pictures, release, removal
from imgdiffd.export.contact_sheet import ContactSheet
from imgdiffd.export.formats.format import Format, Target
from imgdiffd.export.formats.lists import RecordList
from imgdiffd.export.pictures import Picture
from imgdiffd.export.sample import Sample, Split

_FOLDERS = {"replacement": release.IMAGE_FOLDER, "removal": removal.IMAGE_FOLDER}
_NAMES = {"replacement": release.JSON_NAME, "removal": removal.JSON_NAME}
KINDS = tuple(_NAMES)


def path_of(sample: Sample) -> str:
    """The sample's `path`: unique by item and place, and the same in every export of a database."""
    return f"{_FOLDERS[sample.kind]}/{sample.item:08d}_{'_'.join(map(str, sample.place))}"


def record(sample: Sample) -> dict[str, Any]:
    """One entry of its kind's JSON list; `captions1` describes the left image, `captions2` the right one.

    The box is in 0–1, with two decimals; the published object replacement has it inside a string.
    """
    x1, y1, x2, y2 = sample.box
    box = [x1 / sample.width, y1 / sample.height, x2 / sample.width, y2 / sample.height]
    conversations = [{"from": "human", "value": sample.question}, {"from": "gpt", "value": sample.answer}]
    if sample.kind == "removal":
        return {"bbox": [round(edge, 2) for edge in box], "conversations": conversations, "path": path_of(sample)}
    return {
        "conversations": conversations,
        "bbox": f"[{', '.join(f'{edge:.2f}' for edge in box)}]",
        "captions1": sample.text_left,
        "captions2": sample.text_right,
        "path": path_of(sample),
    }


class _ReleaseWriter:
    """A list for each product, and the contact sheet.

    Without samples of object removal there is no list of them, unless nothing else was asked for.
    """

    def __init__(self, target: Target) -> None:
        self.names = (*_NAMES.values(), contact_sheet.NAME, *(f"{name}/" for name in _FOLDERS.values()))
        self._lists = {kind: RecordList(target.folder.path, indent=1) for kind in KINDS if kind in target.kinds}
        self._sheet = ContactSheet(target.sources)
        self._sheet_at = str(target.sheet.absolute() if target.sheet else contact_sheet.NAME)

    def pictures(self, sample: Sample) -> Sequence[Picture]:
        return pictures.two(sample, path_of(sample))

    def resume(self, identities: Iterable[tuple[Split, str]]) -> Mapping[Split, Sequence[str]]:
        return {}

    def add(self, sample: Sample, pictures: Sequence[Picture], jpegs: Sequence[bytes], identity: str) -> None:
        self._lists[sample.kind].add(record(sample))
        if sample.kind == "replacement":
            self._sheet.note(sample)

    def finish(self) -> Mapping[str, durable.Content]:
        files: dict[str, durable.Content] = {}
        for kind, made in self._lists.items():
            if made.count or kind == "replacement" or len(self._lists) == 1:
                files[_NAMES[kind]] = made.write
            if kind == "replacement":
                files[self._sheet_at] = self._sheet.save
        return files

    def close(self) -> None:
        for each in self._lists.values():
            each.close()


FORMAT = Format(
    "as Img-Diff was published: two images a sample, and a list for each product",
    _ReleaseWriter,
    images=("two",),
    split=False,
    trains=False,
    kinds=KINDS,
)
