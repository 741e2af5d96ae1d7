"""Profile files that anybody may name in a request: none of them holds up the daemon."""

import os
from pathlib import Path

import pytest

from imgdiffd.errors import ProfileError
from imgdiffd.method.profile import load_profile
from imgdiffd.method.profile_files import MAX_BYTES


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.toml")
    with pytest.raises(ProfileError, match="not a regular file"):
        load_profile(str(tmp_path / "p.toml"))


def test_a_device_or_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    with pytest.raises(ProfileError, match="not a regular file"):
        load_profile(str(tmp_path / "zero.toml"))
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ProfileError, match="larger than"):
        load_profile(str(tmp_path / "huge.toml"))


@pytest.mark.parametrize("name", ["a\0.toml", "x" * 5000 + ".toml", "/.toml", "\udc80.toml", "/dev/null/a.toml"])
def test_a_path_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match=r"give a readable UTF-8 \.toml file"):
        load_profile(name)


def test_toml_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.toml").write_text(f"a = {'[' * 100_000}")
    with pytest.raises(ProfileError, match="correct the TOML"):
        load_profile(str(tmp_path / "deep.toml"))
