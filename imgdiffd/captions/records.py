"""Normalises and checks one record of a caption file, whatever the file's format."""

import re
import unicodedata
from collections.abc import Mapping

from imgdiffd.job import CaptionProblem, CaptionRecord

MAX_CAPTION_BYTES = 64 * 1024  # of a caption, and of a line: far more than any model reads

# The keys under which records have their caption and their id, the most specific first.
CAPTION_KEYS = ("caption", "text", "sentence", "blip_caption")
ID_KEYS = ("id", "image_id", "image")
_MAX_ID_CHARACTERS = 200

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]+")


Entry = CaptionRecord | CaptionProblem


def too_long(line: int) -> CaptionProblem:
    """The problem of a line or caption longer than MAX_CAPTION_BYTES."""
    return CaptionProblem(line, "too_long", f"longer than {MAX_CAPTION_BYTES // 1024} KiB")


def _source_id(value: object) -> str:
    """A record's id in its file as text that can be stored; "" where it is neither text nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
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
        return CaptionProblem(
            line, "bad_unicode", f"the caption has half of a surrogate pair at character {error.start + 1}"
        )
    normal = " ".join(unicodedata.normalize("NFC", _CONTROL.sub(" ", text)).split())
    if not normal:
        return CaptionProblem(line, "empty", "the caption has no text")
    return CaptionRecord(normal, _source_id(source_id), line)


def _spoken_caption(turns: object) -> object:
    # In LLaVA's records the caption is the model's first answer.
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
        return CaptionProblem(line, "no_caption", f"the record is {type(value).__name__}, not text or an object")
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
    wanted = ", ".join(CAPTION_KEYS)
    return CaptionProblem(line, "no_caption", f"no key {wanted} or conversations; the keys are: {keys or 'none'}")
