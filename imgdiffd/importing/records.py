"""The records of a published dataset: what each says, or why it cannot be used."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import ijson

from imgdiffd.errors import InputError, is_visible
from imgdiffd.export import release, removal
from imgdiffd.method.removal import QUESTION
from imgdiffd.pipeline import Pipeline

LISTS = {Pipeline.REPLACEMENT: release.JSON_NAME, Pipeline.REMOVAL: removal.JSON_NAME}
FOLDERS = {Pipeline.REPLACEMENT: release.IMAGE_FOLDER, Pipeline.REMOVAL: removal.IMAGE_FOLDER}
MOST_PATH, MOST_NAME = 512, 200  # characters of a path, bytes of a name in it
_OBJECT = re.compile(r'related to "(.*)" within the red bounding box', re.DOTALL)
_LETTER = re.compile(r"\s*([AB])\s*\.?\s*")
_HINT = "download the file again, or export it anew"


@dataclass(frozen=True, slots=True)
class Record:
    """One record. The box is in 0–1 of the images' size; `path` names both images without their ends.

    Of object replacement, `left` and `right` say what the box shows and `answer` what differs. Of object removal,
    `answer` is the letter of the side that still has the object, which `left` or `right` names. `asks_as_published`
    says whether the question is the dataset's own.
    """

    kind: Pipeline
    path: str
    box: tuple[float, float, float, float]
    left: str
    right: str
    answer: str
    asks_as_published: bool


class RecordError(Exception):
    """A record that cannot be used; `code` is the short reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def entries(file: Path) -> Iterator[Any]:
    """What the JSON list in `file` holds, one by one. Raises InputError, also midway, for what is no such list."""
    with file.open("rb") as opened:
        if not _is_list(opened):
            raise InputError(f"{file}: not a JSON list", code="bad_json", hint=_HINT)
        try:
            yield from ijson.items(opened, "item", use_float=True)
        except (ijson.JSONError, ValueError, OverflowError) as error:  # a number that nothing can hold, text not UTF-8
            reason = str(error.args[0] if error.args else error).partition("\n")[0]
            raise InputError(f"{file}: broken or cut-off JSON: {reason}", code="bad_json", hint=_HINT) from error


def _is_list(file: BinaryIO) -> bool:
    begun = file.read(1024).lstrip()
    file.seek(0)
    return begun.startswith(b"[")


def record_of(kind: Pipeline, entry: object) -> Record:
    """What an entry of the list of `kind` says. Raises RecordError."""
    path = path_of(entry)
    assert isinstance(entry, Mapping)
    box, (question, answer) = _box(entry), _turns(entry)
    if kind is Pipeline.REPLACEMENT:
        left, right = _text(entry, "captions1"), _text(entry, "captions2")
        return Record(kind, path, box, left, right, answer, question == release.QUESTION)
    named, letter = _OBJECT.search(question), _LETTER.fullmatch(answer)
    if named is None or not named[1].strip():
        raise RecordError("question_unknown", f"its question names no object: {_shown(question)}")
    if letter is None:
        raise RecordError("answer_unknown", f"its answer is neither A nor B: {_shown(answer)}")
    left, right = (named[1], "") if letter[1] == "A" else ("", named[1])
    return Record(kind, path, box, left, right, letter[1], question == QUESTION.replace("{caption}", named[1]))


def path_of(entry: object) -> str:
    """The record's path: relative, of visible names that do not lead upwards. Raises RecordError."""
    if not isinstance(entry, Mapping):
        raise RecordError("record_malformed", f"not an object: {_shown(entry)}")
    path = _text(entry, "path")
    parts = path.split("/")
    wrong = "\\" in path or {"", ".", ".."} & set(parts) or any(len(part.encode()) > MOST_NAME for part in parts)
    if wrong or len(path) > MOST_PATH or not all(map(is_visible, parts)):
        raise RecordError("path_odd", f"its path is not one below the dataset's folder: {_shown(path)}")
    return str(PurePosixPath(path))


def _box(entry: Mapping[str, Any]) -> tuple[float, float, float, float]:
    given = entry.get("bbox")
    try:
        edges = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        edges = None
    if not isinstance(edges, list) or len(edges) != 4 or not all(map(_is_share, edges)):
        raise RecordError("bbox_malformed", f"its bbox is not four numbers from 0 to 1: {_shown(given)}")
    x1, y1, x2, y2 = map(float, edges)
    if x1 > x2 or y1 > y2:
        raise RecordError("bbox_malformed", f"its bbox ends before it begins: {_shown(given)}")
    return x1, y1, x2, y2


def _is_share(edge: object) -> bool:
    return isinstance(edge, int | float) and not isinstance(edge, bool) and math.isfinite(edge) and 0 <= edge <= 1


def _turns(entry: Mapping[str, Any]) -> tuple[str, str]:
    """The question and its answer."""
    turns = entry.get("conversations")
    first = turns[:2] if isinstance(turns, list) else []
    if [each.get("from") if isinstance(each, Mapping) else None for each in first] != ["human", "gpt"]:
        raise RecordError("record_malformed", f"its conversations do not begin with human and gpt: {_shown(turns)}")
    question, answer = (_text(each, "value") for each in first)
    return question, answer


def _text(entry: Mapping[str, Any], key: str) -> str:
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise RecordError("record_malformed", f"its {key} is no text: {_shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecordError("record_malformed", f"its {key} is not Unicode: {_shown(text)}") from None
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
