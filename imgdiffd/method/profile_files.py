"""Reads profiles from TOML files, each merged over the profile that it extends."""

import tomllib
from importlib import resources
from pathlib import Path

from imgdiffd.errors import ProfileError

BUILT_IN = ("default", "paper", "scripts", "data-juicer", "mini")


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
            text = Path(name).read_text("utf-8")
        else:
            raise ProfileError(f"profile {name}: unknown", hint=f"use one of {', '.join(BUILT_IN)} or a .toml file")
        return tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"profile {name}: {error}", hint="give a readable UTF-8 .toml file") from error
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"profile {name}: {error}", hint="correct the TOML") from error


def _merge(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
