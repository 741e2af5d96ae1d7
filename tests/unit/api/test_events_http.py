"""The stream of events over HTTP: who is let in, where a stream begins, how it ends, and that nobody is waited for."""

from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from imgdiffd.api import app as api
from imgdiffd.api.events import CLOSE_S, PAGE, RETRY_MS, Feed, routes
from imgdiffd.schedulers.virtual_time import run_virtual
from tests.fakes.event_stream import EventReader
from tests.fakes.event_world import World, ids
from tests.unit.api.test_app import FakeControl


class Client:
    """One client of the application, without a socket; `reads` off, it takes nothing after the response's head."""

    def __init__(self, feed: Feed, path: str = "/events", *, reads: bool = True) -> None:
        self._app = FastAPI()
        self._app.include_router(routes(feed))
        self._path = path
        self._reads = reads
        self._gone = anyio.Event()
        self.status = 0
        self.body = b""
        self.whole = False

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if not self._reads:
            await anyio.sleep_forever()
        self.body += message["body"]
        self.whole = not message.get("more_body", False)

    def leave(self) -> None:
        self._gone.set()

    async def run(self) -> None:
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": self._path, "raw_path": self._path.encode(), "query_string": b"since=0",
            "headers": [], "client": None, "server": None,
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)


def test_one_stream_too_many_is_refused_until_another_leaves() -> None:
    async def main() -> None:
        feed = World().feed(places=2)
        first, stuck, third, fourth = Client(feed), Client(feed, reads=False), Client(feed), Client(feed)
        async with anyio.create_task_group() as group:
            for client in (first, stuck, third):
                group.start_soon(client.run)
                await anyio.sleep(1.0)
            assert (first.status, stuck.status, third.status) == (200, 200, 503)
            assert b"2 streams of events are open" in third.body
            stuck.leave()
            await anyio.sleep(1.0)
            group.start_soon(fourth.run)
            await anyio.sleep(1.0)
            assert fourth.status == 200
            group.cancel_scope.cancel()

    run_virtual(main)


def test_closing_ends_readers_and_cuts_off_the_rest() -> None:
    async def main() -> None:
        world = World()
        feed = world.feed()
        reading, stuck, late = Client(feed), Client(feed, reads=False), Client(feed)
        ended_s: list[float] = []
        async with anyio.create_task_group() as group:

            async def run() -> None:
                await reading.run()
                ended_s.append(anyio.current_time())

            group.start_soon(run)
            group.start_soon(stuck.run)
            await anyio.sleep(2.5)
            world.record()  # whoever sleeps until the next look is due is woken too
            began_s = anyio.current_time()
            with anyio.fail_after(CLOSE_S + 1):
                await feed.close()
        assert (ended_s, reading.whole) == ([began_s], True)
        assert not stuck.whole
        await late.run()
        assert (late.status, late.whole) == (503, True)

    run_virtual(main)


def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    async def main() -> None:
        world = World()
        feed = world.feed()
        stuck, reading = Client(feed, reads=False), Client(feed)
        async with anyio.create_task_group() as group:
            group.start_soon(stuck.run)
            group.start_soon(reading.run)
            for _ in range(10):
                await anyio.sleep(1.0)
                world.record(PAGE)
            await anyio.sleep(2.0)
            group.cancel_scope.cancel()
        assert ids(EventReader().feed(reading.body)) == list(range(1, 10 * PAGE + 1))

    run_virtual(main)


async def _answer(world: World, query: str, header: str | None) -> httpx.Response:
    """What the whole API answers; a stream is ended as soon as it began."""
    app, feed = api.build_app(FakeControl(), "1"), world.feed()
    app.include_router(routes(feed))
    async with (
        anyio.create_task_group() as group,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://imgdiffd") as client,
    ):

        async def close() -> None:
            await anyio.wait_all_tasks_blocked()
            await feed.close()

        group.start_soon(close)
        headers = [] if header is None else [(b"Last-Event-ID", header.encode("latin-1"))]
        answer = await client.get(f"/events{query}", headers=headers)
    return answer


@pytest.mark.anyio
@pytest.mark.parametrize("header", ["x", "-1", "1.5.2", "1.", ".1", "", " ", "\xb2", "1" * 5000, "1e3", "0x1", "12 "])
async def test_an_id_that_is_no_number_is_refused_with_a_sentence(header: str) -> None:
    answer = await _answer(World(), "", header)
    assert answer.status_code == 422
    assert "is not the id of an event (send the id" in answer.json()["detail"]


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?job=0", f"?since={10**19}", "?since=1."])
async def test_a_wrong_number_in_the_query_is_refused(query: str) -> None:
    assert (await _answer(World(), query, None)).status_code == 422


@pytest.mark.anyio
async def test_an_unknown_job_is_not_followed() -> None:
    answer = await _answer(World(), "?job=9", None)
    assert (answer.status_code, answer.json()) == (
        404,
        {"detail": "there is no job 9 (`imgdiffd jobs` lists them)", "code": "unknown_job"},
    )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "header", "first"),
    [
        ("", None, "5.2"),
        ("?since=0", None, "0.0"),
        ("?since=2", None, "2.0"),
        ("?since=0", "3", "3.0"),  # who connects again asks with the same address
        ("", "0", "0.0"),
        ("?since=3.1", None, "3.1"),
        ("", "4.2", "4.2"),
        ("", "4.9", "4.2"),
        ("", "6", "5.0"),  # of a database that is not this one
        ("?since=99", None, "5.0"),
        ("", "9999999999999999999", "5.0"),
    ],
)
async def test_a_stream_begins_behind_the_last_id_or_since_or_now(query: str, header: str | None, first: str) -> None:
    world = World()
    world.record(5)
    world.record_removal(2)
    answer = await _answer(world, query, header)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.startswith(f"id: {first}\nretry: {RETRY_MS}\n\n")


def test_the_schema_knows_the_stream_and_how_it_is_refused() -> None:
    app = api.build_app(FakeControl(), "1")
    app.include_router(routes(World().feed()))
    stream = app.openapi()["paths"]["/events"]["get"]
    assert {parameter["name"] for parameter in stream["parameters"]} == {"since", "job", "last-event-id"}
    assert list(stream["responses"]["200"]["content"]) == ["text/event-stream"]
    assert {"404", "422", "503"} < set(stream["responses"])
