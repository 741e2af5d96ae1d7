"""Writes a profile as the TOML file that would give it, each key under a comment with its meaning."""

import json
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Bound

_COMMENT_WIDTH = 100


def as_toml(profile: Profile) -> str:
    """The whole profile; `load_profile` reads the text back as an equal one."""
    return "\n".join(_table(profile, "")) + "\n"


def _table(model: BaseModel, heading: str) -> Iterator[str]:
    """The lines of a table, its own keys first: in TOML, what follows a heading belongs to that heading."""
    if heading:
        yield from ("", f"[{heading}]")
    tables: list[tuple[str, BaseModel]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel) and not isinstance(value, Bound):
            tables.append((name, value))
            continue
        yield from textwrap.wrap(
            field.description or "", _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        yield f"# {name} is not set" if value is None else f"{name} = {_value(value)}"
    for name, table in tables:
        yield from _table(table, f"{heading}.{name}" if heading else name)


def _value(value: object) -> str:
    if isinstance(value, Bound):
        return f"{{ value = {value.value}, closed = true }}" if value.closed else repr(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, dict):
        pairs = ", ".join(f"{_string(str(key))} = {_value(part)}" for key, part in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)


def _string(text: str) -> str:
    # JSON's escapes are TOML's too, but JSON leaves DEL as it is and TOML does not.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
