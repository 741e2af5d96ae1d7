"""Every error that imgdiffd raises on purpose.

ImgdiffdError                 what went wrong, why, and what to do next
├── ConfigurationError        exit status 78: starting again will not help
│   ├── SettingsError         a key or value in the settings, with file and line where known
│   ├── ProfileError          an unknown profile or a wrong threshold
│   └── BundleError           a model that is missing, damaged or in a format that is not allowed
├── InputError                a caption file or record that cannot be used
├── StoreError                the database: in use by another daemon, or it cannot be opened, read or written
│   ├── StoreFullError        the disk has no room for a change, which may succeed later
│   └── StoreDamagedError     exit status 78: the database is damaged, emptied or gone
├── ExportError               a dataset that cannot be written: its folder, its choice of samples, a missing image
├── DaemonError               on the client's side: no daemon, or a broken connection
│   └── RefusedError          the daemon refused a request, such as one about an unknown job
└── WorkError                 a batch or a worker, with device, stage and items
    ├── OutOfMemoryError      the batch did not fit; a smaller one may
    ├── StageError            the stage raised on this batch
    │   └── NoRoomError       the disk was too full for the images that it made
    ├── WorkerDiedError       the worker process ended, hung or broke the protocol
    └── DeviceStartError      the worker process never became ready
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h; the unit file tells systemd not to restart on it


class ImgdiffdError(Exception):
    """The base of the tree. `str()` is one line for people: what, why, and in brackets `hint`, what to do next.

    Whatever it quotes, the message can be encoded as UTF-8, since it is printed, sent and stored.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigurationError(ImgdiffdError):
    """What was configured cannot work, now or after a restart."""

    exit_status = EXIT_CONFIGURATION


class SettingsError(ConfigurationError):
    """A key or value in the settings is wrong."""


class ProfileError(ConfigurationError):
    """A profile is unknown or holds a wrong value."""


class BundleError(ConfigurationError):
    """A model of the bundle is missing, damaged or in a refused format."""


class InputError(ImgdiffdError):
    """A caption file, or one record of it, cannot be used. `code` is the short reason kept in the database."""

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


def unknown_job(job: int) -> InputError:
    """What everything that is asked about a job says when there is none of that number."""
    return InputError(f"there is no job {job}", code="unknown_job", hint="`imgdiffd jobs` lists them")


class StoreError(ImgdiffdError):
    """The database cannot be opened or written."""


class StoreFullError(StoreError):
    """The disk was full: nothing was changed, and trying again once there is room will help."""


class StoreDamagedError(StoreError):
    """The database is damaged, or is not where its images are: starting again will not help."""

    exit_status = EXIT_CONFIGURATION


class ExportError(ImgdiffdError):
    """The dataset cannot be written as asked: into this folder, of these samples, from the images that are there."""


class DaemonError(ImgdiffdError):
    """The daemon does not answer, or not as it should."""


class RefusedError(DaemonError):
    """The daemon refused one request; others may succeed."""


class WorkError(ImgdiffdError):
    """A batch or a worker failed. `device`, `stage` and `items` say where; the cause is chained."""

    def __init__(
        self,
        message: str,
        *,
        device: str = "",
        stage: str = "",
        items: Sequence[int] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.device = device
        self.stage = stage
        self.items = tuple(items)


class OutOfMemoryError(WorkError):
    """The device had too little memory for this batch; the worker goes on."""


class StageError(WorkError):
    """The stage raised on this batch; the worker goes on."""


class NoRoomError(StageError):
    """The disk had no room for what the stage made. This does not count against its items."""


class WorkerDiedError(WorkError):
    """The worker process ended, stopped answering or broke the protocol while it had this batch.

    `begun` is False where the batch cannot be the cause: it was queued behind another, the worker had been asked to
    end, or none was running. Then it does not count against its items.
    """

    begun = True


class DeviceStartError(WorkError):
    """The worker process did not become ready: its models could not be loaded, or its device was not found."""


def first_line(error: BaseException) -> str:
    """What `error` says, in one line: the first of its message, after its type's name where it is not one of ours."""
    name = type(error).__name__
    lines = str(error).strip().splitlines()
    if not lines:
        return name
    first = lines[0].rstrip()
    return first if isinstance(error, ImgdiffdError) else f"{name}: {first}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 caption`, `2 captions`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


# Printable by the letter of Unicode, but blank: Hangul fillers, an empty Braille cell, and their like.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


def visible(text: str) -> str:
    """The text on one line, with control characters, and what hides or turns text, written out: ESC as \\x1b."""
    if text.isprintable() and _BLANK.isdisjoint(text):
        return text
    shown = (each if each.isprintable() and each not in _BLANK else _escaped(each) for each in text)
    return "".join(shown)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def is_visible(name: str) -> bool:
    """Whether a name can be seen and typed: something of it is neither blank nor only added to another character."""
    seen = any(not each.isspace() and not unicodedata.category(each).startswith("M") for each in name)
    return seen and visible(name) == name


def reason_of(error: Exception) -> str:
    """Why a file could not be used, without its path: the message around it names that."""
    match error:
        case UnicodeDecodeError():
            return f"not UTF-8 at byte {error.start}"
        case OSError(strerror=str() as words):
            return words
    return " ".join(str(error).split()) or type(error).__name__


_WRONG = {  # pydantic's types of errors, in our words; what its context has can stand in braces
    "missing": "missing",
    "extra_forbidden": "no such key",
    "string_too_long": "must have at most {max_length} characters",
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number, not {given}"
    ),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a number, not {given}"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false, not {given}"),
    "string_type": "must be text, not {given}",
    "is_instance_of": "must be text, not {given}",  # only paths are of a class
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list, not {given}"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a table, not {given}"),
    "greater_than_equal": "must be at least {ge}, not {given}",
    "greater_than": "must be more than {gt}, not {given}",
    "less_than_equal": "must be at most {le}, not {given}",
    "less_than": "must be less than {lt}, not {given}",
    "multiple_of": "must be a multiple of {multiple_of}, not {given}",
    **dict.fromkeys(("literal_error", "enum"), "must be {expected}, not {given}"),
}


def wrong_value(error: Mapping[str, Any]) -> str:
    """What pydantic holds against a value, in our words: `must be at least 1, not 0`. Takes one of its `errors()`."""
    kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind in ("string_too_short", "too_short") and context["min_length"] == 1:
        return "is empty"
    if kind not in _WRONG:
        return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    shown = str(given).lower() if isinstance(given, bool) else repr(given)
    return _WRONG[kind].format(**context, given=shown if len(shown) <= 100 else f"{shown[:100]}…")


def wrong_values(errors: Sequence[Mapping[str, Any]]) -> str:
    """As `wrong_value`, of the first of pydantic's `errors()`; of a value that may be of several kinds, all of them.

    Such a value has an error for each kind, all at its key: `must be true or false, or 'auto', not 'x'`.
    """
    first = errors[0]
    kinds = [each for each in errors if each["loc"][:1] == first["loc"][:1] and each["input"] is first["input"]]
    told = dict.fromkeys(map(wrong_value, kinds if len(first["loc"]) > 1 else kinds[:1]))
    *others, last = (each.removeprefix("must be ") if number else each for number, each in enumerate(told))
    return ", or ".join([*(each.rpartition(", not ")[0] or each for each in others), last])
