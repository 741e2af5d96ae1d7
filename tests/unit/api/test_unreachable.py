"""What somebody is told whose daemon cannot be reached."""

import grp
import os
import pwd
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from imgdiffd.api import unreachable
from imgdiffd.api.client import Client
from imgdiffd.errors import DaemonError

NOBODY = 65534
GROUP = 1  # daemon's, on every Linux


@pytest.fixture
def stranger() -> Iterator[str]:
    """This process acts as a user who shares no group with the files' owner; returns the user's name."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as somebody else")
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield pwd.getpwuid(NOBODY).pw_name
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder below folders that everybody may enter, as /var/lib is and pytest's own are not."""
    found = Path(f"/tmp/imgdiffd-test-{os.getpid()}")
    found.mkdir()
    yield found
    os.chmod(found, 0o700)
    for path in sorted(found.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    found.rmdir()


def refused(path: Path) -> str:
    with Client(path) as client, pytest.raises(DaemonError) as error:
        client.status()
    return str(error.value)


def test_a_socket_that_is_not_there_is_told_from_a_missing_folder(tmp_path: Path) -> None:
    assert "there is no socket (start it with `imgdiffd serve`" in refused(tmp_path / "s")
    assert f"there is no folder {tmp_path}/gone (start it" in refused(tmp_path / "gone" / "s")


def test_a_socket_left_behind_and_another_file_are_told_apart(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "s"))
    assert "the one that made this socket has ended" in refused(tmp_path / "s")
    (tmp_path / "file").touch()
    assert "this is not a socket" in refused(tmp_path / "file")


def test_a_daemon_that_takes_no_connection_does_not_hang_its_client(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        waiting.connect(str(tmp_path / "s"))
        with Client(tmp_path / "s", timeout_s=0.1) as client, pytest.raises(DaemonError, match="takes no connection"):
            client.status()


def test_an_order_about_many_captions_is_waited_for(tmp_path: Path) -> None:
    body = b'{"retried": 100000}'

    def answer_slowly() -> None:
        listener.accept()[0].close()  # the client looks first whether anybody listens
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            time.sleep(0.5)  # far longer than the client waits for other answers
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with socket.socket(socket.AF_UNIX) as listener, Client(tmp_path / "s", timeout_s=0.1) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        daemon = Thread(target=answer_slowly)
        daemon.start()
        assert client.retry() == 100_000
        daemon.join()


@pytest.mark.parametrize(("folder_mode", "socket_mode"), [(0o750, 0o660), (0o755, 0o660)])
def test_who_is_not_in_the_group_is_told_which_to_join(
    folder: Path, stranger: str, monkeypatch: pytest.MonkeyPatch, folder_mode: int, socket_mode: int
) -> None:
    os.seteuid(0)
    place = folder if folder_mode == 0o750 else folder / "s"
    folder.chmod(folder_mode)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        for path in (folder, folder / "s"):
            os.chown(path, 0, GROUP)
        (folder / "s").chmod(socket_mode)
        listener.listen()
        os.seteuid(NOBODY)
        group = grp.getgrgid(place.stat().st_gid).gr_name
        assert refused(folder / "s") == (
            f"{place}: user {stranger} is not in group {group} "
            f"(run: sudo usermod --append --groups {group} {stranger}; then log in again)"
        )
        monkeypatch.setattr(unreachable, "_members", lambda _: [stranger])
        assert f"joined group {group} after logging in (log in again)" in refused(folder / "s")


def test_a_socket_for_one_user_alone_names_that_user(folder: Path, stranger: str) -> None:
    assert stranger
    os.seteuid(0)
    folder.chmod(0o700)
    os.seteuid(NOBODY)
    assert refused(folder / "s") == f"only user root may use {folder} (run this as that user: sudo -u root …)"
