"""Clients that send nothing, half of something or garbage, or read nothing: they lose their place, nobody else does."""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from imgdiffd.api.app import UPLOADS
from imgdiffd.api.connections import AT_WORK
from imgdiffd.api.events import PLACES
from tests.integration.daemon_process import LIMIT_S, RunningDaemon, daemon, drop

CLIENTS = int(os.environ.get("HOSTILE_CLIENTS", "600"))
STREAM = b"GET /events?since=0 HTTP/1.1\r\nHost: imgdiffd\r\n\r\n"
HURRY = (
    "from imgdiffd.api import connections as c, events as e\n"
    "c.IDLE_S, c.BODY_S, c.UNREAD_S, e.RECLAIM_S = 1.0, 1.0, 3.0, 2.0\n"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("daemon")
    drop(folder, "captions.txt", [f"a cat and {n} dogs" for n in range(20)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * CLIENTS + 1000), hard))
    with daemon(folder, before=HURRY) as started:
        started.wait_done()
        yield started
        _, *traceback = started.log.read_text().partition("Traceback")
        assert not any(traceback), traceback[1][-5000:]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(folder: Path, said: bytes = b"") -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(LIMIT_S)
    deadline = time.monotonic() + LIMIT_S
    while (error := client.connect_ex(str(folder / "s"))) and time.monotonic() < deadline:
        time.sleep(0.01)  # EAGAIN: the queue of those who wait to be let in is full
    assert error == 0
    with suppress(ConnectionError):  # pushed out already
        client.sendall(said)
    return client


@contextmanager
def crowd(folder: Path, number: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many clients that say this and then nothing, and read nothing."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(folder, said)) for _ in range(number)]


def descriptors(running: RunningDaemon) -> int:
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))


def said_to_the_end(client: socket.socket) -> bytes:
    """What the daemon says until it ends the connection."""
    heard = b""
    with suppress(ConnectionError):
        while part := client.recv(65536):
            heard += part
    return heard


def cut_off(client: socket.socket, drop: bytes) -> bool:
    """Whether a client that says this ten times a second is cut off."""
    for _ in range(round(10 * LIMIT_S)):
        try:
            client.sendall(drop)
        except ConnectionError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /status HTTP/1.1\r\nHost: im",
        b"POST /jobs?name=a.txt HTTP/1.1\r\nHost: imgdiffd\r\nContent-Length: 1000000\r\n\r\na cat\n",
        b"GET /status HTTP/1.1\r\nHost: imgdiffd\r\n\r\n" * 3,
        STREAM,
    ],
    ids=["silent", "half-head", "half-body", "unread", "stream"],
)
def test_a_crowd_that_stalls_shuts_nobody_out(running: RunningDaemon, said: bytes) -> None:
    before = descriptors(running)
    with crowd(running.folder, CLIENTS, said):
        assert descriptors(running) <= before + AT_WORK + UPLOADS
        for _ in range(5):
            began = time.monotonic()
            assert running.client.alive()
            assert running.client.status().jobs
            assert time.monotonic() - began < 20.0
        running.wait(lambda _: descriptors(running) <= before + 2, "the end of those who stall")
    assert list((running.folder / "inbox").glob(".submitted-*")) == []


def test_streams_that_are_never_read_give_up_their_places(running: RunningDaemon) -> None:
    deadline = time.monotonic() + LIMIT_S
    with crowd(running.folder, PLACES, STREAM):
        head = b""
        while not head.startswith(b"HTTP/1.1 200") and time.monotonic() < deadline:
            with connect(running.folder, STREAM) as listener:
                head = listener.recv(100)
        assert head.startswith(b"HTTP/1.1 200")


def test_a_head_sent_drop_by_drop_is_cut_off(running: RunningDaemon) -> None:
    with connect(running.folder, b"GET /health HTTP/1.1\r\n") as client:
        assert cut_off(client, b"X-Drop: 1\r\n")


def test_a_body_sent_drop_by_drop_is_cut_off_and_its_file_removed(running: RunningDaemon) -> None:
    head = b"POST /jobs?name=a.txt HTTP/1.1\r\nHost: i\r\nContent-Length: 999\r\n\r\n"
    with connect(running.folder, head) as client:
        assert cut_off(client, b"a")
    running.wait(lambda _: not list((running.folder / "inbox").glob(".submitted-*")), "the removal of the file")


@pytest.mark.parametrize(
    "said",
    [
        bytes(range(256)) * 8,
        b"\r\n" * 10_000,
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: i\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: i\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: i\r\nContent-Length: -1\r\n\r\n",
        b"POST /jobs?name=a.txt HTTP/1.1\r\nHost: i\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /events HTTP/1.1\r\nHost: i\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: i\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    ],
    ids=["bytes", "newlines", "version", "header", "headers", "target", "length", "chunk", "late-chunk", "upgrade"],
)
def test_garbage_is_refused_with_a_sentence_or_cut_off(running: RunningDaemon, said: bytes) -> None:
    with connect(running.folder, said) as client:
        heard = said_to_the_end(client)
        assert heard == b"" or heard.startswith((b"HTTP/1.1 40", b"HTTP/1.1 200"))
        assert not heard.startswith(b"HTTP/1.1 400") or b'{"detail": "' in heard
    assert running.client.alive()


def test_requests_in_one_breath_are_answered_in_order(running: RunningDaemon) -> None:
    paths = [b"/health", b"/nope", b"/jobs/1", b"/funnel"] * 10
    with connect(running.folder, b"".join(b"GET %s HTTP/1.1\r\nHost: i\r\n\r\n" % path for path in paths)) as client:
        heard = said_to_the_end(client)
    assert [answer[:3] for answer in heard.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200", b"200"] * 10
