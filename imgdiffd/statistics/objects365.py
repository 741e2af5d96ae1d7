"""The class names of the dataset Objects365, by the file that ultralytics brings (paper, 5.2)."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from imgdiffd.errors import ConfigurationError
from imgdiffd.method.nouns import noun_lemma

_FILE = Path("cfg", "datasets", "Objects365.yaml")
_NAME = re.compile(r"^  \d+: *(?P<name>\S.*?) *(?:#.*)?$", re.MULTILINE)


@cache
def class_names() -> tuple[str, ...]:
    """The 365 names as they are written ("Cabinet/shelf"). ultralytics is found, but not run, since it loads torch.

    Raises ConfigurationError where its file is missing or holds no names.
    """
    spec = find_spec("ultralytics")
    folders = spec.submodule_search_locations if spec else None
    hint = "install imgdiffd's dependencies again"
    if not folders:
        raise ConfigurationError("ultralytics, which brings the names of Objects365, is not installed", hint=hint)
    path = Path(folders[0]) / _FILE
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}", hint=hint) from error
    names = tuple(found["name"].strip("'\"") for found in _NAME.finditer(text.partition("\nnames:")[2]))
    if not names:
        raise ConfigurationError(f"{path}: no class names in it", hint=hint)
    return names


@cache
def object_names() -> frozenset[str]:
    """Every name of a class, split at "/", in lower case and singular: "Cabinet/shelf" is two."""
    return frozenset(_singular(name.lower()) for each in class_names() for name in each.split("/"))


def _singular(name: str) -> str:
    *before, last = name.split()
    return " ".join((*before, noun_lemma(last) or last))
