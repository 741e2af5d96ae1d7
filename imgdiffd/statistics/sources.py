"""Reads the samples that statistics are of: from a database, or from a folder in the published format."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import ijson

from imgdiffd.errors import InputError, reason_of
from imgdiffd.export import release, removal
from imgdiffd.export.sample import Choice, samples
from imgdiffd.statistics.tally import Seen
from imgdiffd.store import Reader

REPLACEMENT, REMOVAL = "replacement", "removal"
_ASKED = re.compile(r'related to "(?P<text>.*)" within the red bounding box', re.DOTALL)
_NUMBER = re.compile(r"_\d+$")  # of the region, or of the object, in the name of a sample
_HINT = "give a database, or a folder with img_diff_object_replacement.json, such as `imgdiffd export` writes"


def database_samples(reader: Reader, images: Path, jobs: Collection[int] | None) -> Iterator[tuple[str, Seen]]:
    """Each sample of these jobs, or of all, with its kind. The first text is of what was replaced."""
    for sample in samples(reader, Choice(jobs=jobs)):
        sides = [sample.text_left, sample.text_right]
        texts = tuple(text for text in (sides if sample.original == "left" else sides[::-1]) if text)
        pair = images / sample.left, images / sample.right
        yield sample.kind, Seen(texts, str(sample.item), pair, sample.caption, sample.scores)


def is_release(folder: Path) -> bool:
    """Whether the folder holds a dataset in the published format."""
    return any((folder / name).is_file() for name in (release.JSON_NAME, removal.JSON_NAME))


def release_samples(folder: Path) -> Iterator[tuple[str, Seen]]:
    """Each sample of a dataset in the published format, with its kind; its texts are left and right.

    Raises InputError, naming file and record, where a record is not in that format; OSError.
    """
    for kind, name in ((REPLACEMENT, release.JSON_NAME), (REMOVAL, removal.JSON_NAME)):
        path = folder / name
        if path.is_file():
            for number, record in enumerate(_records(path), 1):
                try:
                    texts = _left_and_right(record) if kind == REPLACEMENT else _asked(record)
                    place = folder / str(record["path"])
                except (KeyError, TypeError, AttributeError, IndexError) as error:
                    raise _not_released(f"{path}: record {number}: {reason_of(error)}") from error
                pair = place.with_name(f"{place.name}_0.jpg"), place.with_name(f"{place.name}_1.jpg")
                yield kind, Seen(texts, _NUMBER.sub("", str(place)), pair)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            yield from ijson.items(file, "item", use_float=True)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise _not_released(f"{path}: broken or cut-off JSON") from error


def _left_and_right(record: Mapping[str, Any]) -> tuple[str, ...]:
    return str(record["captions1"]), str(record["captions2"])


def _asked(record: Mapping[str, Any]) -> tuple[str, ...]:
    question = str(record["conversations"][0]["value"])
    found = _ASKED.search(question)
    return (found["text"] if found else question,)


def _not_released(what: str) -> InputError:
    return InputError(what, code="not_a_release", hint=_HINT)
