"""Reads profiles from TOML files, each merged over the profile that it extends."""

import os
import stat
import tomllib
from importlib import resources
from pathlib import Path
from typing import TypeGuard

from imgdiffd.errors import ProfileError, reason_of

BUILT_IN = ("default", "paper", "scripts", "data-juicer", "table14", "mini")
MAX_BYTES = 1 << 20  # a request may name any path: neither a pipe nor a huge file may hold up the daemon


def read_profile(name: str) -> dict[str, object]:
    """All keys of the built-in profile called `name`, or of the TOML file at that path. Raises ProfileError."""
    return _read(name, ())


def _read(name: str, extended_by: tuple[str, ...]) -> dict[str, object]:
    if name in extended_by:
        chain = " -> ".join((*extended_by, name))
        raise ProfileError(f"profile {name}: extends itself: {chain}", hint="change one of these `extends`")
    data = _load(name)
    data.setdefault("name", Path(name).stem)  # before merging: a changed profile must not have its base's name
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise ProfileError(f"profile {name}: extends must be the name of a profile", hint='such as extends = "default"')
    if base.endswith(".toml") and name.endswith(".toml"):
        base = str(Path(name).parent / base)
    return _merge(_read(base, (*extended_by, name)), data)


def _load(name: str) -> dict[str, object]:
    try:
        if name in BUILT_IN:
            text = resources.files("imgdiffd.method").joinpath("profiles", f"{name}.toml").read_text("utf-8")
        elif name.endswith(".toml"):
            text = _text(name)
        else:
            raise ProfileError(f"profile {name}: unknown", hint=f"use one of {', '.join(BUILT_IN)} or a .toml file")
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProfileError(f"profile {name}: {error}", hint="correct the TOML") from error
    except (OSError, ValueError) as error:  # not UTF-8, or a path with a NUL byte
        raise ProfileError(f"profile {name}: {reason_of(error)}", hint="give a readable UTF-8 .toml file") from error


def _text(path: str) -> str:
    """A regular file's text. Raises ProfileError for anything else, at once."""
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ProfileError(f"profile {path}: not a regular file", hint="give a .toml file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ProfileError(f"profile {path}: larger than {MAX_BYTES} bytes", hint="give a .toml file of a profile")
    return data.decode("utf-8")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of TOML is a number, as a threshold may be."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _merge(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        old, new = _as_tables(merged.get(key), value)
        merged[key] = _merge(old, new) if isinstance(old, dict) and isinstance(new, dict) else value
    return merged


def _as_tables(old: object, new: object) -> tuple[object, object]:
    """A threshold that one profile gives as a number and the other as a table, as tables that can be merged."""
    if is_number(new) and isinstance(old, dict) and "value" in old:
        return old, {"value": new}
    if is_number(old) and isinstance(new, dict) and new.keys() <= {"value", "closed"}:
        return {"value": old}, new
    return old, new
