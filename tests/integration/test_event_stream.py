"""The stream of events from a real daemon: cut off anywhere, it misses nothing, and it never holds up the stop."""

import os
import random
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from imgdiffd.api.events import PAGE
from imgdiffd.store import Reader, Store
from tests.fakes.answers import captions
from tests.fakes.event_stream import Event, EventReader
from tests.fakes.store_driver import finish, submit
from tests.integration.daemon_process import LIMIT_S, daemon, drop

CUTS = int(os.environ.get("EVENT_CUTS", "1"))
TEXTS = [f"a {animal} in the {place}" for animal in ("cat", "dog", "horse", "cow") for place in range(60)]


@contextmanager
def streaming(folder: Path, last_id: str = "", query: str = "?since=0") -> Iterator[httpx.Response]:
    """One connection to the stream."""
    transport = httpx.HTTPTransport(uds=str(folder / "s"))
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with (
        httpx.Client(transport=transport, base_url="http://imgdiffd", timeout=LIMIT_S) as client,
        client.stream("GET", f"/events{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        yield answer


def hear(folder: Path, last_id: str, most_bytes: int) -> Iterator[Event]:
    """What comes until the connection is cut: after so many bytes, or by the daemon's death."""
    reader, left = EventReader(last_id), most_bytes
    try:
        with streaming(folder, last_id) as answer:
            for chunk in answer.iter_raw():
                yield from reader.feed(chunk[:left])
                left -= len(chunk)
                if left <= 0:
                    return
    except httpx.TransportError:
        return


def recorded(folder: Path) -> list[int]:
    with Reader.open(folder / "state.db") as reader:
        return sorted(sample.id for sample in reader.samples())


@pytest.mark.parametrize("seed", range(CUTS), ids=lambda seed: f"seed{seed}")
def test_cut_off_or_killed_every_sample_comes_once_in_order(tmp_path: Path, seed: int) -> None:
    draw, last_id, heard = random.Random(seed), "", list[int]()
    done = False
    drop(tmp_path, "captions.txt", TEXTS)
    while not done:
        enough = len(heard) + draw.randrange(1, len(TEXTS))
        with daemon(tmp_path) as running:
            running.wait(lambda _: True, "an answer")
            while not done and len(heard) < enough:
                for event in hear(tmp_path, last_id, draw.choice((100, 2000, 100_000))):
                    last_id = event.id
                    if event.kind == "sample":
                        heard.append(event.data["id"])
                    done = event.kind == "progress" and [job["state"] for job in event.data["jobs"]] == ["done"]
                    if done or len(heard) >= enough:
                        break
    assert heard == recorded(tmp_path)
    assert len(heard) > len(TEXTS) // 2


async def _filled(database: Path, count: int) -> int:
    async with Store.open(database) as store:
        await submit(store, count)
        await finish(store)
        return await store.newest_sample()


def unread(folder: Path) -> socket.socket:
    """A client that asks for everything and reads nothing."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(folder / "s"))
    client.sendall(b"GET /events?since=0 HTTP/1.1\r\nHost: imgdiffd\r\n\r\n")
    return client


def test_stopping_ends_streams_and_waits_for_no_idle_reader(tmp_path: Path) -> None:
    newest = anyio.run(_filled, tmp_path / "state.db", 20 * PAGE)
    with daemon(tmp_path) as running, closing(EventThread(tmp_path)) as listener:
        running.wait(lambda status: status.ready, "readiness")
        listener.start()
        with unread(tmp_path), unread(tmp_path):
            listener.until(newest)
            running.wait(lambda _: True, "an answer beside clients that do not read")
            assert running.stop() == 0
        listener.join(LIMIT_S)
        assert listener.ended == "whole"
        assert listener.ids == list(range(1, newest + 1))
        assert "Traceback" not in running.log.read_text()


class EventThread(threading.Thread):
    """Listens from the first sample on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._came = threading.Condition()
        self.ids: list[int] = []
        self.ended = ""

    def run(self) -> None:
        reader = EventReader()
        try:
            with streaming(self._folder) as answer:
                for chunk in answer.iter_raw():
                    with self._came:
                        self.ids += [event.data["id"] for event in reader.feed(chunk) if event.kind == "sample"]
                        self._came.notify()
            self.ended = "whole"
        except httpx.TransportError as error:
            self.ended = repr(error)

    def until(self, newest: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: newest in self.ids, LIMIT_S)

    def close(self) -> None:
        self.join(LIMIT_S)


def test_what_was_recorded_wakes_the_stream_before_its_next_look(tmp_path: Path) -> None:
    never_look = "from imgdiffd.api import events\nevents.QUIET_S = 3600.0\n"
    with daemon(tmp_path, before=never_look) as running:
        running.wait(lambda _: True, "an answer")
        with streaming(tmp_path) as answer:
            reader, chunks = EventReader(), answer.iter_raw()
            for paused in (True, False, True):
                running.client.set_paused(paused)
                while [event.data["paused"] for event in reader.feed(next(chunks))][-1:] != [paused]:
                    pass


@pytest.mark.anyio
async def test_the_id_of_a_sample_is_never_given_again(tmp_path: Path) -> None:
    newest = await _filled(tmp_path / "state.db", 3)
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("DELETE FROM samples")
    async with Store.open(tmp_path / "state.db") as store:
        assert await store.newest_sample() == newest
        await submit(store, captions(2, start=50), name="more")
        await finish(store)
        assert (await store.samples())[0].id == newest + 1
