"""The stream of events, on virtual time: nothing is missed, nothing comes twice, and nobody is waited for."""

import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from fastapi import FastAPI

from imgdiffd import api
from imgdiffd.errors import StoreError
from imgdiffd.events import CLOSE_S, HEARTBEAT_S, PACE_S, PAGE, QUIET_S, RETRY_MS, Bell, Feed, routes
from imgdiffd.schedulers.virtual_time import run_virtual
from imgdiffd.status import JobView, Status
from imgdiffd.store import JobRow, SampleRow
from tests.event_stream import Event, EventReader
from tests.unit.test_api import JOB, FakeControl

SAMPLE = SampleRow(
    id=0, item=7, job=1, job_name="a", profile="default", group="1", source="a", source_id="", line=1, attempt=1,
    caption1="a cat", caption2="a dog", nouns1=("cat",), nouns2=("dog",), image1="1.png", image2="2.png", width=64,
    height=64, rewrite_seed=1, generate_seed=2, pair_scores={}, region=0, image=1, box=(1, 2, 3, 4), scores={},
    text1="a grey cat", text2="a dog\nwith two lines", left=2, difference="a dog, not a cat", left_image="l.png",
    right_image="r.png", created_at=5.0,
)  # fmt: skip


@dataclass
class World:
    """A store and a daemon of which one sees what was recorded; every question asked is noted."""

    bell: Bell = field(default_factory=Bell)
    rows: list[SampleRow] = field(default_factory=list)
    paused: bool = False
    looks_s: list[float] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    while_looking: Callable[[], None] = lambda: None
    broken: bool = False

    def record(self, count: int = 1, job: int = 1) -> None:
        first = len(self.rows) + 1
        self.rows += [replace(SAMPLE, id=number, job=job) for number in range(first, first + count)]
        self.bell.ring()

    def _job(self, number: int) -> JobView:
        return JOB.model_copy(update={"id": number, "samples": sum(row.job == number for row in self.rows)})

    async def status(self) -> Status:
        self.looks_s.append(anyio.current_time())
        status = (await FakeControl().status()).model_copy(
            update={"paused": self.paused, "jobs": (self._job(2), self._job(1)), "uptime_s": anyio.current_time()}
        )
        await anyio.lowlevel.checkpoint()
        self.while_looking()
        return status

    async def job(self, job: int) -> JobRow | None:
        return JobRow.__new__(JobRow) if job in (1, 2) else None

    async def newest_sample(self) -> int:
        await anyio.lowlevel.checkpoint()
        return len(self.rows)

    async def samples(self, job: int | None, after: int, limit: int) -> list[SampleRow]:
        await anyio.lowlevel.checkpoint()
        if self.broken:
            raise StoreError("the database cannot be read")
        page = [row for row in self.rows if row.id > after and job in (None, row.job)][:limit]
        self.pages.append(len(page))
        return page

    def feed(self, places: int = 32) -> Feed:
        return Feed(self, self.status, self.bell, places=places)


async def during(stream: AsyncGenerator[bytes], seconds: float, reader: EventReader | None = None) -> list[Event]:
    """What a client hears in that time; then it leaves."""
    reader, heard = reader or EventReader(), []
    with anyio.move_on_after(seconds):
        async for chunk in stream:
            heard += reader.feed(chunk)
    await stream.aclose()
    return heard


def ids(events: list[Event]) -> list[int]:
    return [event.data["id"] for event in events if event.kind == "sample"]


def test_a_sample_tells_what_was_found_where_and_its_id() -> None:
    async def main() -> None:
        world = World()
        world.record()
        [sample, _] = await during(world.feed().events(0, None), 0.5)
        assert sample == Event(
            "sample",
            "1",
            {
                "id": 1, "job": 1, "item": 7, "region": 0, "box": [1, 2, 3, 4], "left_image": "l.png",
                "right_image": "r.png", "left_text": "a dog\nwith two lines", "right_text": "a grey cat",
                "difference": "a dog, not a cat", "created_at": 5.0,
            },
        )  # fmt: skip

    run_virtual(main)


def test_who_goes_on_hears_all_samples_above_its_id_once_in_order_page_by_page_and_then_the_live_ones() -> None:
    async def main() -> None:
        world = World()
        world.record(3 * PAGE + 5)
        feed, heard = world.feed(), []
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                heard.extend(await during(feed.events(17, None), 10.0))

            group.start_soon(listen)
            for count in (1, 2, PAGE, 1):
                await anyio.sleep(1.3)
                world.record(count)
        assert ids(heard) == list(range(18, len(world.rows) + 1))
        assert max(world.pages) == PAGE

    run_virtual(main)


def test_who_is_cut_off_before_the_first_sample_misses_none_either() -> None:
    async def main() -> None:
        world = World()
        world.record(4)
        feed, reader = world.feed(), EventReader()
        assert ids(await during(feed.events(await feed.start(None, None), None), 0.5, reader)) == []
        assert (reader.last_id, reader.retry_ms) == ("4", RETRY_MS)
        world.record(2)  # while nobody listens
        since = await feed.start(int(reader.last_id), None)
        assert ids(await during(feed.events(since, None), 1.5)) == [5, 6]

    run_virtual(main)


@pytest.mark.parametrize("seed", range(30))
def test_cut_off_and_connected_again_at_any_moment_a_client_hears_every_sample_once(seed: int) -> None:
    async def main() -> None:
        draw, world, reader, heard = random.Random(seed), World(), EventReader("0"), list[Event]()
        feed, over = world.feed(), anyio.Event()

        async def work() -> None:
            for _ in range(40):
                await anyio.sleep(draw.choice((0.0, 0.0, 0.1, 2.0)))
                world.record(draw.choice((1, 2, PAGE)), job=draw.choice((1, 2)))
            over.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while not over.is_set() or ids(heard)[-1] < len(world.rows):
                stream = feed.events(await feed.start(int(reader.last_id), None), None)
                heard += await during(stream, draw.choice((0.0, 0.05, 1.0, 3.0)), reader)
                reader = EventReader(reader.last_id)
        assert ids(heard) == list(range(1, len(world.rows) + 1))
        for number, event in enumerate(heard):
            if event.kind == "progress":
                counted = sum(job["samples"] for job in event.data["jobs"])
                assert len(ids(heard[:number])) >= counted, "progress counts a sample that was not sent yet"

    run_virtual(main, seed=seed)


def test_a_sample_recorded_during_a_look_is_sent_before_the_progress_that_counts_it() -> None:
    async def main() -> None:
        world = World()
        world.while_looking = lambda: world.record() if len(world.rows) < 3 else None
        heard = await during(world.feed().events(0, None), 5.0)
        counts = [event.data["id"] if event.kind == "sample" else _samples(event) for event in heard]
        assert counts == [1, 0, 2, 1, 3, 2, 3]

    def _samples(event: Event) -> int:
        return sum(job["samples"] for job in event.data["jobs"])

    run_virtual(main)


def test_one_job_alone_can_be_followed() -> None:
    async def main() -> None:
        world = World()
        for job in (1, 2, 2, 1):
            world.record(PAGE, job)
        heard = await during(world.feed().events(0, 2), 2.0)
        assert ids(heard) == list(range(PAGE + 1, 3 * PAGE + 1))
        assert [job["id"] for job in heard[-1].data["jobs"]] == [2]

    run_virtual(main)


def test_progress_comes_whole_when_something_changed_and_at_most_once_a_second() -> None:
    async def main() -> None:
        world = World()
        feed, times = world.feed(), list[float]()
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                with anyio.move_on_after(60.0):
                    async for chunk in feed.events(0, None):
                        if any(event.kind == "progress" for event in EventReader().feed(chunk)):
                            times.append(anyio.current_time())

            group.start_soon(listen)
            for _ in range(100):  # ten seconds of it
                await anyio.sleep(0.1)
                world.record()
            await anyio.sleep(20.0)
            world.paused = True  # leaves no record in this world, as a fault of a device does not
            paused_s = anyio.current_time()
        steps = [after - before for before, after in pairwise(times)]
        assert min(steps) >= PACE_S - 1e-9
        assert len(times) == pytest.approx(12, abs=1)
        assert paused_s < times[-1] <= paused_s + QUIET_S

    run_virtual(main)


def test_a_stream_without_news_gives_a_sign_of_life_and_no_event() -> None:
    async def main() -> None:
        world, reader = World(), EventReader()
        heard = await during(world.feed().events(0, None), 10 * HEARTBEAT_S + 1, reader)
        assert (len(heard), reader.comments) == (1, 10)

    run_virtual(main)


def test_one_look_serves_all_streams() -> None:
    async def main() -> None:
        world = World()
        feed, heard = world.feed(), list[list[Event]]()

        async def listen() -> None:
            heard.append(await during(feed.events(0, None), 4.5))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(listen)
            for _ in range(40):
                await anyio.sleep(0.1)
                world.record()
        assert len(world.looks_s) <= 6
        assert [ids(each) for each in heard] == [list(range(1, 41))] * 20

    run_virtual(main)


def test_a_database_that_cannot_be_read_ends_the_stream_and_no_more() -> None:
    async def main() -> None:
        world = World()
        world.record(3)
        feed, reader = world.feed(), EventReader()
        world.broken = True
        assert await during(feed.events(1, None), 100.0, reader) == []
        world.broken = False
        assert ids(await during(feed.events(int(reader.last_id), None), 2.0)) == [2, 3]

    run_virtual(main)


# Over HTTP


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


def test_one_client_more_than_there_are_places_is_told_so_until_another_leaves() -> None:
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


def test_closing_ends_those_that_read_at_once_cuts_off_the_others_and_takes_no_more() -> None:
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
            await feed.close()
            assert anyio.current_time() - began_s <= CLOSE_S
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
@pytest.mark.parametrize("header", ["x", "-1", "1.5", "", " ", "\xb2", "1" * 5000, "1e3", "0x1", "12 "])
async def test_an_id_that_is_no_number_is_refused_with_a_sentence(header: str) -> None:
    answer = await _answer(World(), "", header)
    assert answer.status_code == 422
    assert "is not the number of an event (send the id" in answer.json()["detail"]


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?job=0", f"?since={2**63}"])
async def test_a_wrong_number_in_the_query_is_refused(query: str) -> None:
    assert (await _answer(World(), query, None)).status_code == 422


@pytest.mark.anyio
async def test_an_unknown_job_is_not_followed() -> None:
    answer = await _answer(World(), "?job=9", None)
    assert (answer.status_code, answer.json()) == (404, {"detail": "there is no job 9"})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "header", "first"),
    [
        ("", None, "5"),
        ("?since=0", None, "0"),
        ("?since=2", None, "2"),
        ("?since=0", "3", "3"),  # who connects again asks with the same address
        ("", "0", "0"),
        ("", "6", "5"),  # of a database that is not this one
        ("?since=99", None, "5"),
        ("", "9999999999999999999", "5"),
    ],
)
async def test_a_stream_begins_behind_the_last_id_or_since_or_now(query: str, header: str | None, first: str) -> None:
    world = World()
    world.record(5)
    answer = await _answer(world, query, header)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.startswith(f"id: {first}\nretry: {RETRY_MS}\n\n")


def test_no_ring_is_missed_by_one_who_says_how_many_he_knows_of() -> None:
    async def main() -> list[tuple[int, float]]:
        bell, woken = Bell(), list[tuple[int, float]]()
        bell.ring()

        async def wait(known: int) -> None:
            await bell.after(known)
            woken.append((known, anyio.current_time()))

        async with anyio.create_task_group() as group:
            for known in (0, 1, 1, 2):
                group.start_soon(wait, known)
            for _ in range(2):
                await anyio.sleep(1.0)
                bell.ring()
        return sorted(woken)

    assert run_virtual(main) == [(0, 0.0), (1, 1.0), (1, 1.0), (2, 2.0)]
