"""Normalises and checks one record of a caption file, whatever the file's format."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from imgdiffd.job import CaptionProblem, CaptionRecord

MAX_CAPTION_BYTES = 64 * 1024  # of a caption, and of a line: far more than any model reads

# The keys under which records have their caption and their id: the first one of a record counts.
CAPTION_KEYS = (
    "caption", "text", "sentence", "blip_caption", "captions", "sentences", "raw", "description", "comment",
)  # fmt: skip
ID_KEYS = ("id", "image_id", "image", "cocoid", "filename", "file_name", "image_name", "key", "url")
EXAMPLE = 'one caption a line, or JSON such as [{"id": 7, "caption": "a dog on a red sofa"}]'
_MAX_ID_CHARACTERS = 200
_MAX_ID_BITS = 640

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")
_PICTURE = re.compile(r"\S+\.(?:jpe?g|png|webp|gif|bmp)(?:#\d+)?", re.IGNORECASE)


Entry = CaptionRecord | CaptionProblem


def caption_keys(field: str) -> tuple[str, ...]:
    """The keys that may hold a caption: `field` alone where a person named one."""
    return (field,) if field else CAPTION_KEYS


def too_long(line: int, limit_bytes: int = MAX_CAPTION_BYTES) -> CaptionProblem:
    """The problem of a line or caption that is longer than `limit_bytes`."""
    return CaptionProblem(line, "too_long", f"longer than {limit_bytes // 1024} KiB")


def printable(text: str, characters: int = 200) -> str:
    """The beginning of `text` as one line that can be stored and shown, without control characters."""
    return _CONTROL.sub(" ", text[:characters]).encode("utf-8", "backslashreplace").decode("utf-8")


def shown(names: Iterable[object]) -> str:
    """The first of these keys or columns, for a message."""
    return ", ".join(printable(str(name), 40) for name in islice(names, 8))


def is_picture(value: object) -> bool:
    """Whether this is the name of an image file, as it stands before its captions; Flickr adds `#` and a number."""
    return isinstance(value, str) and _PICTURE.fullmatch(value) is not None


def _source_id(value: object) -> str:
    """A record's id in its file as text that can be stored; "" where it is neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    if isinstance(value, int) and value.bit_length() > _MAX_ID_BITS:
        return ""
    return str(value)[:_MAX_ID_CHARACTERS].encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def make_record(text: object, source_id: object, line: int) -> Entry:
    """The caption normalised, or the problem with it."""
    if not isinstance(text, str):
        return CaptionProblem(line, "no_caption", f"the caption is {type(text).__name__}, not text")
    if len(text) > MAX_CAPTION_BYTES:
        return too_long(line)
    if "\0" in text:
        return CaptionProblem(line, "nul", "the caption has a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return CaptionProblem(line, "bad_unicode", f"the caption is not valid Unicode at character {error.start + 1}")
    normal = " ".join(unicodedata.normalize("NFC", _CONTROL.sub(" ", text)).split())
    if not normal:
        return CaptionProblem(line, "empty", "the caption has no text")
    return CaptionRecord(normal, _source_id(source_id), line)


def captions_in(value: object, source_id: object, line: int) -> Iterator[Entry]:
    """What a caption's key holds: a text, or a list of texts or, as in COCO's splits, of objects with a text."""
    if not isinstance(value, list) or not value:
        yield make_record(value, source_id, line)
        return
    for each in value:
        if isinstance(each, Mapping):
            key = next((key for key in CAPTION_KEYS if key in each), None)
            yield make_record(None if key is None else each[key], source_id, line)
        else:
            yield make_record(each, source_id, line)


def _spoken_caption(turns: object) -> object:
    # In LLaVA's records the caption is the model's first answer.
    if isinstance(turns, list):
        for turn in turns:
            if isinstance(turn, Mapping) and turn.get("from") in ("gpt", "assistant"):
                return turn.get("value")
    return None


def _under(value: Mapping[str, object], field: str) -> object:
    """What the record has under this key, or under these nested keys with dots between them. Raises KeyError."""
    if field in value:
        return value[field]
    found: object = value
    for key in field.split("."):
        if not isinstance(found, Mapping):
            raise KeyError(field)
        found = found[key]
    return found


def records_of(value: object, line: int, field: str = "", source_id: object = "") -> Iterator[Entry]:
    """The captions in a JSON value: a string, a list, an object with a caption's key, or a LLaVA conversation.

    With `field`, only what stands under that key. `source_id` counts where the record has no id of its own.
    """
    if isinstance(value, str) and not field:
        yield make_record(value, source_id, line)
    elif isinstance(value, list) and value and not field:
        named = len(value) > 1 and is_picture(value[0])
        yield from captions_in(value[1:] if named else value, value[0] if named else source_id, line)
    elif isinstance(value, Mapping):
        yield from _in_object(value, line, field, next((value[key] for key in ID_KEYS if key in value), source_id))
    else:
        yield CaptionProblem(line, "no_caption", _unfit(value, field))


def _unfit(value: object, field: str) -> str:
    if field:
        return f"the record is not an object, so it has no field {printable(field, 40)}"
    return f"the record is {type(value).__name__}, not text or an object"


def _in_object(value: Mapping[str, object], line: int, field: str, source_id: object) -> Iterator[Entry]:
    for key in caption_keys(field):
        try:
            found = _under(value, key) if field else value[key]
        except KeyError:
            continue
        yield from captions_in(found, source_id, line)
        return
    if "conversations" in value and not field:
        spoken = _spoken_caption(value["conversations"])
        if spoken is not None:
            yield make_record(spoken, source_id, line)
        else:
            yield CaptionProblem(line, "no_caption", "the conversation has no answer from gpt")
        return
    wanted = shown([field]) if field else f"{', '.join(CAPTION_KEYS[:4])} or conversations"
    yield CaptionProblem(line, "no_caption", f"no key {wanted}; the keys are: {shown(value) or 'none'}")
