"""The daemon under a service manager's protocol: sockets handed over, signs of life, exit codes. No systemd needed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgdiffd.api import listening
from imgdiffd.api.client import Client
from imgdiffd.errors import EXIT_CONFIGURATION, ConfigurationError
from tests.integration.daemon_process import LIMIT_S, daemon

# What systemd does between fork and exec: the descriptor becomes 3, and the environment names the process.
_HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
_SERVE = """
import sys
import anyio
from imgdiffd.cli import main as cli
from imgdiffd.daemon import serve as daemon
from imgdiffd.testing.worker import COMMAND
serve = daemon.serve
daemon.serve = lambda settings, **rest: serve(settings, command=COMMAND, **rest)
cli.main(["serve"])
"""
# SIGUSR1 blocks the main thread, and with it the loop, until a file is taken away; other threads go on.
_BLOCKABLE = """
import os, pathlib, signal, time
def block(_number, _frame):
    gate = pathlib.Path(os.environ["GATE"])
    gate.touch()
    while gate.exists():
        time.sleep(0.01)
signal.signal(signal.SIGUSR1, block)
"""


@contextmanager
def handed_over(folder: Path, listener: socket.socket, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        "IMGDIFFD_CONFIG": os.devnull,
        "IMGDIFFD_STATE_FOLDER": str(folder),
        "IMGDIFFD_SOCKET_PATH": str(folder / "s"),
        "IMGDIFFD_DEVICES": "cpu",
        "IMGDIFFD_MIN_FREE_GB": "0",
        "LISTEN_FDS": "1",
    }
    command = [sys.executable, "-P", "-c", _HAND_OVER, str(listener.fileno()), sys.executable, "-P", "-c", _SERVE]
    with (folder / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **settings, **environ},
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def drained(manager: socket.socket) -> list[str]:
    """Everything that was sent so far."""
    manager.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


def test_an_inherited_socket_is_answered_and_outlives_the_stop(tmp_path: Path) -> None:
    with listening.bind(tmp_path / "s") as listener, handed_over(tmp_path, listener) as process:
        with Client(tmp_path / "s") as client:  # it waits in the backlog until the daemon accepts
            until(client.alive, "an answer")
            assert client.status().pid == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        assert (tmp_path / "s").is_socket()
        assert "serves" in (tmp_path / "daemon.log").read_text()


def test_a_request_during_a_restart_is_answered_by_the_next(tmp_path: Path) -> None:
    with listening.bind(tmp_path / "s") as listener, Client(tmp_path / "s") as client:
        with handed_over(tmp_path, listener) as first:
            until(client.alive, "an answer")
            first.kill()
            first.wait()
        with handed_over(tmp_path, listener) as second:
            until(client.alive, "an answer of the next one")
            assert client.status().pid == second.pid


def test_a_socket_open_to_everybody_is_refused(tmp_path: Path) -> None:
    with listening.bind(tmp_path / "s") as listener:
        (tmp_path / "s").chmod(0o666)
        with handed_over(tmp_path, listener) as process:
            assert process.wait(LIMIT_S) == EXIT_CONFIGURATION
    assert "has mode 0666" in (tmp_path / "daemon.log").read_text()


def test_a_client_needs_no_certificates_for_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
    with Client(tmp_path / "s") as client:
        assert not client.alive()


def test_sockets_meant_for_another_process_are_left_alone() -> None:
    assert listening.inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) is None
    assert listening.inherited({}) is None


def test_of_several_sockets_the_one_named_api_is_taken(tmp_path: Path) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
    with pytest.raises(ConfigurationError, match="none of them named api"):
        listening.inherited({**environ, "LISTEN_FDNAMES": "a:b"})
    with listening.bind(tmp_path / "s") as listener, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listening, "FIRST_INHERITED", os.dup(listener.fileno()) - 1)
        taken = listening.inherited({**environ, "LISTEN_FDNAMES": "metrics:api"})
        assert taken is not None
        with taken:
            assert taken.getsockname() == str(tmp_path / "s")
            assert not taken.get_inheritable()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_descriptor_that_does_not_listen_on_a_path_is_refused(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as wrong, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listening, "FIRST_INHERITED", os.dup(wrong.fileno()))
        with pytest.raises(ConfigurationError, match="not a listening Unix socket"):
            listening.inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})


def test_the_manager_hears_ready_then_progress_then_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(LIMIT_S)
        with daemon(tmp_path / "d", NOTIFY_SOCKET=str(tmp_path / "n"), WATCHDOG_USEC="2000000") as running:
            heard: list[str] = []
            while (
                not {"READY=1", "WATCHDOG=1"} <= set(heard)
                or "STATUS=2 of 2 devices ready; no job is open" not in heard
            ):
                heard.append(manager.recv(4096).decode())
            assert running.client.alive()
            assert running.stop() == 0
            heard += drained(manager)
    assert any(message.startswith("STOPPING=1\nEXTEND_TIMEOUT_USEC=") for message in heard)


@pytest.mark.parametrize("how", ["the process is stopped", "its loop is blocked, other threads go on"])
def test_a_daemon_that_is_held_up_gives_no_sign_of_life(tmp_path: Path, how: str) -> None:
    stopped = how == "the process is stopped"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(LIMIT_S)
        watched = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "400000", "GATE": str(tmp_path / "gate")}
        with daemon(tmp_path / "d", before=_BLOCKABLE, **watched) as running:
            while manager.recv(4096) != b"WATCHDOG=1":
                pass
            if stopped:
                running.process.send_signal(signal.SIGSTOP)
                until(lambda: " T " in Path(f"/proc/{running.process.pid}/stat").read_text(), "its standstill")
            else:
                running.process.send_signal(signal.SIGUSR1)
                until((tmp_path / "gate").exists, "a blocked loop")
            drained(manager)
            manager.settimeout(0.8)
            with pytest.raises(TimeoutError):
                manager.recv(4096)
            if stopped:
                running.process.send_signal(signal.SIGCONT)
            else:
                (tmp_path / "gate").unlink()
            manager.settimeout(LIMIT_S)
            assert manager.recv(4096)


def test_a_daemon_started_with_closed_streams_has_its_workers(tmp_path: Path) -> None:
    environ = {
        "IMGDIFFD_CONFIG": os.devnull,
        "IMGDIFFD_STATE_FOLDER": str(tmp_path),
        "IMGDIFFD_DEVICES": "cpu",
        "IMGDIFFD_MIN_FREE_GB": "0",
    }
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$0" -P -c "$1" <&- >&- 2>&-', sys.executable, _SERVE], env={**os.environ, **environ}
    )
    try:
        with Client(tmp_path / "imgdiffd.sock") as client:
            until(lambda: client.alive() and client.status().ready, "a worker")
            assert [device.restarts for device in client.status().devices] == [0]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", ["serve", "check"])
def test_wrong_settings_exit_78_quickly_naming_file_line_and_key(tmp_path: Path, command: str) -> None:
    settings = tmp_path / "wrong.toml"
    settings.write_text('\nstate_foldr = "/tmp"\n')
    ended = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "imgdiffd", "--config", str(settings), command],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert ended.returncode == EXIT_CONFIGURATION
    assert "wrong.toml, line 2: state_foldr: no such setting" in ended.stderr
    loaded = set(re.findall(r"\| +([\w.]+)$", ended.stderr, re.MULTILINE))
    assert "imgdiffd.settings" in loaded
    assert not loaded & {"aiosqlite", "fastapi", "numpy", "pyarrow", "torch"}  # which take seconds on a cold disk


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize("megabytes", [100, 300, 2000])
def test_a_limited_address_space_is_refused_in_one_line(tmp_path: Path, command: str, megabytes: int) -> None:
    ended = subprocess.run(
        ["prlimit", f"--as={megabytes * 10**6}", sys.executable, "-P", "-m", "imgdiffd", command],
        env={**os.environ, "IMGDIFFD_STATE_FOLDER": str(tmp_path), "IMGDIFFD_DEVICES": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert ended.returncode == EXIT_CONFIGURATION
    (line,) = ended.stderr.splitlines()
    assert f"limited to {megabytes / 1000:.1f} GB" in line
    assert "ulimit -v unlimited" in line
