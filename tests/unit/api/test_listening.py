"""The socket that the API is served on."""

import os
import socket
import stat
from pathlib import Path

import pytest

from imgdiffd.api.listening import bind
from imgdiffd.errors import ConfigurationError, DaemonError


def test_the_socket_is_never_open_beyond_0660(tmp_path: Path) -> None:
    old_mask = os.umask(0)  # the most permissive caller
    try:
        with bind(tmp_path / "s") as listener:
            assert stat.S_IMODE((tmp_path / "s").lstat().st_mode) == 0o660
            assert listener.family == socket.AF_UNIX
    finally:
        os.umask(old_mask)


def test_a_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    bind(tmp_path / "s").close()  # what a killed daemon leaves
    with bind(tmp_path / "s"), pytest.raises(DaemonError, match="already listens"):
        bind(tmp_path / "s")


def test_a_file_in_the_sockets_place_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ConfigurationError, match="not a socket"):
        bind(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"
