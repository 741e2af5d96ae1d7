"""A printed profile is a profile file: read back, it is the same, and every key says what it means."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_files import BUILT_IN
from imgdiffd.method.profile_sections import Bound
from imgdiffd.method.profile_toml import as_toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def read_back(text: str, folder: Path) -> Profile:
    file = folder / "printed.toml"
    file.write_text(text, "utf-8")
    return load_profile(str(file))


def described(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, str | None]]:
    """Every key of a profile with its meaning; a threshold is one key."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Bound:
            yield from described(kind, f"{before}{name}.")
        else:
            yield before + name, field.description


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_printed_profile_reads_back_as_the_same(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    assert read_back(as_toml(profile), tmp_path) == profile


@given(
    name=TEXT.filter(lambda name: bool(name.strip()) and name.isprintable()),
    prompt=TEXT,
    word=TEXT,
    factor=st.floats(-100, 100),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_any_text_and_number_survives_printing(
    tmp_path_factory: pytest.TempPathFactory, name: str, prompt: str, word: str, factor: float, seed: int
) -> None:
    profile = load_profile("default")
    rewrite = profile.rewrite.model_copy(update={"prompt": prompt + "{caption}"})
    generate = profile.generate.model_copy(update={"reweight": {word: factor}, "word_steps": {word: (0.0, 1.0)}})
    changed = profile.model_copy(update={"name": name, "seed": seed, "rewrite": rewrite, "generate": generate})
    assert read_back(as_toml(changed), tmp_path_factory.getbasetemp()) == changed


def test_every_key_of_a_profile_says_what_it_means() -> None:
    keys = dict(described(Profile))
    assert len(keys) > 50
    assert [key for key, meaning in keys.items() if not meaning] == []
    text = as_toml(load_profile("default")).replace("\n# ", " ")
    assert [key for key, meaning in keys.items() if meaning and meaning not in text] == []


def test_a_key_without_a_value_is_said_and_left_out() -> None:
    assert "# decimals is not set\n" in as_toml(load_profile("default"))
