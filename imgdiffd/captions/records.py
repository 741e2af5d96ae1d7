"""One caption, or one record that cannot be a caption: what every reader of caption files hands on.

It owns normalising and checking a single record; it does not know file formats.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

MAX_CAPTION_BYTES = 64 * 1024  # of a caption, and of a line: far beyond what any model reads

# Under which key a record keeps its caption, the likeliest first, and where it says what it is.
CAPTION_KEYS = ("caption", "text", "sentence", "blip_caption")
ID_KEYS = ("id", "image_id", "image")
MAX_ID_CHARACTERS = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")


@dataclass(frozen=True, slots=True)
class CaptionRecord:
    """A caption in NFC with single spaces. `line` is its line or, in JSON and Parquet, its record's number, from 1.

    `source_id` is what the file calls it, or "".
    """

    text: str
    source_id: str
    line: int


@dataclass(frozen=True, slots=True)
class CaptionProblem:
    """A record that is no caption; `code` is the short reason, `message` says more."""

    line: int
    code: str
    message: str


Entry = CaptionRecord | CaptionProblem


def too_long(line: int) -> CaptionProblem:
    """The problem of a line or caption beyond MAX_CAPTION_BYTES."""
    return CaptionProblem(line, "too_long", f"longer than {MAX_CAPTION_BYTES // 1024} KiB")


def source_id_of(value: object) -> str:
    """A file's own name for a record, as storable text; "" where it is neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)[:MAX_ID_CHARACTERS].encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def make_record(text: object, source_id: object, line: int) -> Entry:
    """The caption normalised, or why it is none."""
    if not isinstance(text, str):
        return CaptionProblem(line, "no_caption", f"the caption is {type(text).__name__}, not text")
    if len(text) > MAX_CAPTION_BYTES:
        return too_long(line)
    if "\0" in text:
        return CaptionProblem(line, "nul", "holds a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return CaptionProblem(line, "bad_unicode", f"half of a surrogate pair at character {error.start + 1}")
    normal = " ".join(unicodedata.normalize("NFC", _CONTROL.sub(" ", text)).split())
    if not normal:
        return CaptionProblem(line, "empty", "no text in the caption")
    return CaptionRecord(normal, source_id_of(source_id), line)


def _spoken_caption(turns: object) -> object:
    # LLaVA's records: the answer of the first turn that is not the human's.
    if isinstance(turns, list):
        for turn in turns:
            if isinstance(turn, Mapping) and turn.get("from") in ("gpt", "assistant"):
                return turn.get("value")
    return None


def record_of(value: object, line: int) -> Entry:
    """The caption in a JSON value: a string, an object with a caption's key, or a LLaVA conversation."""
    if isinstance(value, str):
        return make_record(value, "", line)
    if not isinstance(value, Mapping):
        return CaptionProblem(line, "no_caption", f"a record is {type(value).__name__}, not text or an object")
    source_id = next((value[key] for key in ID_KEYS if key in value), "")
    for key in CAPTION_KEYS:
        if key in value:
            return make_record(value[key], source_id, line)
    if "conversations" in value:
        spoken = _spoken_caption(value["conversations"])
        if spoken is None:
            return CaptionProblem(line, "no_caption", "the conversation has no answer from gpt")
        return make_record(spoken, source_id, line)
    keys = ", ".join(str(key)[:40] for key in list(value)[:8])
    return CaptionProblem(
        line, "no_caption", f"no key {', '.join(CAPTION_KEYS)} or conversations among {keys or 'none'}"
    )
