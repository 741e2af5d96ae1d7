"""The stream of events, on virtual time: nothing is missed, nothing comes twice, and all share one look."""

import random
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import anyio
import pytest

from imgdiffd.api.events import HEARTBEAT_S, PACE_S, PAGE, QUIET_S, RETRY_MS, Bell
from imgdiffd.api.progress import SeenProgress
from imgdiffd.api.sample_events import Position, position_of
from imgdiffd.schedulers.virtual_time import run_virtual
from tests.fakes.event_stream import Event, EventReader
from tests.fakes.event_world import JOB, STATUS, World, ids

REMOVAL = "removal_sample"


async def during(stream: AsyncGenerator[bytes], seconds: float, reader: EventReader | None = None) -> list[Event]:
    """What a client hears in that time; then it leaves."""
    reader, heard = reader or EventReader(), []
    with anyio.move_on_after(seconds):
        async for chunk in stream:
            heard += reader.feed(chunk)
    await stream.aclose()
    return heard


def test_a_sample_tells_what_was_found_where_and_its_id() -> None:
    async def main() -> None:
        world = World()
        world.record()
        [sample, _] = await during(world.feed().events(Position(), None), 0.5)
        assert sample == Event(
            "sample",
            "1.0",
            {
                "id": 1, "key": "ab" * 16, "job": 1, "item": 7, "region": 0, "box": [1, 2, 3, 4],
                "left_image": "l.png", "right_image": "r.png", "left_text": "a dog\nwith two lines",
                "right_text": "a grey cat", "difference": "a dog, not a cat", "created_at": 5.0,
            },
        )  # fmt: skip

    run_virtual(main)


def test_a_resumed_stream_sends_missed_samples_then_live_ones() -> None:
    async def main() -> None:
        world = World()
        world.record(3 * PAGE + 5)
        feed, heard = world.feed(), []
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                heard.extend(await during(feed.events(Position(17), None), 10.0))

            group.start_soon(listen)
            for count in (1, 2, PAGE, 1):
                await anyio.sleep(1.3)
                world.record(count)
        assert ids(heard) == list(range(18, len(world.rows) + 1))
        assert max(world.pages) == PAGE

    run_virtual(main)


def test_a_cut_before_the_first_sample_misses_none() -> None:
    async def main() -> None:
        world = World()
        world.record(4)
        feed, reader = world.feed(), EventReader()
        assert ids(await during(feed.events(await feed.start(None, None), None), 0.5, reader)) == []
        assert (reader.last_id, reader.retry_ms) == ("4.0", RETRY_MS)
        world.record(2)  # while nobody listens
        since = await feed.start(position_of(reader.last_id), None)
        assert ids(await during(feed.events(since, None), 1.5)) == [5, 6]

    run_virtual(main)


@pytest.mark.parametrize("seed", range(30))
def test_a_client_cut_off_at_any_moment_hears_every_sample_once(seed: int) -> None:
    async def main() -> None:
        draw, world, reader, heard = random.Random(seed), World(), EventReader("0"), list[Event]()
        feed, over = world.feed(), anyio.Event()

        async def work() -> None:
            for _ in range(40):
                await anyio.sleep(draw.choice((0.0, 0.0, 0.1, 2.0)))
                record = draw.choice((world.record, world.record_removal))
                record(draw.choice((1, 2, PAGE)), job=draw.choice((1, 2)))
            over.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while not over.is_set() or (len(ids(heard)), len(ids(heard, REMOVAL))) < (
                len(world.rows),
                len(world.removals),
            ):
                stream = feed.events(await feed.start(position_of(reader.last_id), None), None)
                heard += await during(stream, draw.choice((0.0, 0.05, 1.0, 3.0)), reader)
                reader = EventReader(reader.last_id)
        assert ids(heard) == list(range(1, len(world.rows) + 1))
        assert ids(heard, REMOVAL) == list(range(1, len(world.removals) + 1))
        jobs = dict[int, dict[str, Any]]()
        for number, event in enumerate(heard):
            if event.kind == "progress":
                jobs |= {job["id"]: job for job in event.data["jobs"]}
                counted = sum(job["samples"] for job in jobs.values())
                removed = sum(job["removal"]["samples"] for job in jobs.values())
                assert len(ids(heard[:number])) >= counted, "progress counts a sample that was not sent yet"
                assert len(ids(heard[:number], REMOVAL)) >= removed

    run_virtual(main, seed=seed)


def test_a_sample_is_sent_before_the_progress_that_counts_it() -> None:
    async def main() -> None:
        world = World()
        world.while_looking = lambda: world.record() if len(world.rows) < 3 else None
        heard = await during(world.feed().events(Position(), None), 5.0)
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
        heard = await during(world.feed().events(Position(), 2), 2.0)
        assert ids(heard) == list(range(PAGE + 1, 3 * PAGE + 1))
        assert [job["id"] for job in heard[-1].data["jobs"]] == [2]

    run_virtual(main)


def test_progress_comes_on_change_and_at_most_once_a_second() -> None:
    async def main() -> None:
        world = World()
        feed, times = world.feed(), list[float]()
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                with anyio.move_on_after(60.0):
                    async for chunk in feed.events(Position(), None):
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


def test_a_removal_sample_asks_its_question_and_shares_the_ids() -> None:
    async def main() -> None:
        world = World()
        world.record()
        world.record_removal(2)
        _, _, removal, _ = await during(world.feed().events(Position(), None), 0.5)
        assert (removal.kind, removal.id, removal.data["id"], removal.data["item"]) == (REMOVAL, "1.2", 2, 7)
        assert (removal.data["bbox"], removal.data["answer"]) == ([0.1, 0.2, 0.3, 0.4], "A")
        assert (removal.data["left_image"], removal.data["right_image"]) == ("with.png", "without.png")
        assert ids(await during(world.feed().events(position_of("1"), None), 0.5), REMOVAL) == [
            1,
            2,
        ]  # of an older daemon

    run_virtual(main)


def test_progress_is_whole_once_and_then_of_jobs_that_changed() -> None:
    async def main() -> None:
        world, feed = World(jobs=tuple(range(100, 0, -1))), None
        feed = world.feed()
        heard = list[Event]()
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                heard.extend(await during(feed.events(Position(), None), 20.0))

            group.start_soon(listen)
            await anyio.sleep(1.5)
            world.record(job=7)
            await anyio.sleep(2.0)
            world.eta_s = 60.0  # no change by itself
            world.bell.ring()
            await anyio.sleep(2.0)
            world.record_removal(job=9)
            await anyio.sleep(2.0)
            world.paused = True
            await anyio.sleep(QUIET_S)
            world.jobs = world.jobs[:-1]
        told = [
            (e.data["whole"], [job["id"] for job in e.data["jobs"]], e.data["gone"])
            for e in heard
            if e.kind == "progress"
        ]
        assert told == [
            (True, list(range(100, 0, -1)), []),
            (False, [7], []),
            (False, [9], []),
            (False, [], []),
            (False, [], [1]),
        ]
        assert [event.data["open"]["eta_s"] for event in heard if event.kind == "progress"] == [
            None,
            None,
            60.0,
            60.0,
            60.0,
        ]

    run_virtual(main)


def test_who_missed_looks_is_told_of_all_that_changed_meanwhile() -> None:
    def look(before: SeenProgress | None, *samples: int) -> SeenProgress:
        jobs = tuple(JOB.model_copy(update={"id": n, "samples": count}) for n, count in enumerate(samples))
        return SeenProgress(STATUS.model_copy(update={"jobs": jobs}), before)

    def told(text: bytes) -> list[int]:
        return [job["id"] for event in EventReader().feed(text) for job in event.data["jobs"]]

    first = look(None, 0, 0, 0)
    second = look(first, 0, 1, 0)
    third = look(look(second, 0, 1, 5), 0, 1, 5)
    assert told(third.event(None)) == [0, 1, 2]
    assert told(third.event(first)) == [1, 2]
    assert told(third.event(second)) == [2]
    assert third.event(third) == b""


def test_a_stream_without_news_gives_a_sign_of_life_and_no_event() -> None:
    async def main() -> None:
        world, reader = World(), EventReader()
        heard = await during(world.feed().events(Position(), None), 10 * HEARTBEAT_S + 1, reader)
        assert (len(heard), reader.comments) == (1, 10)

    run_virtual(main)


def test_one_look_serves_all_streams() -> None:
    async def main() -> None:
        world = World()
        feed, heard = world.feed(), list[list[Event]]()

        async def listen() -> None:
            heard.append(await during(feed.events(Position(), None), 4.5))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(listen)
            for _ in range(40):
                await anyio.sleep(0.1)
                world.record()
        assert len(world.looks_s) <= 6
        assert [ids(each) for each in heard] == [list(range(1, 41))] * 20

    run_virtual(main)


def test_an_unreadable_database_ends_only_the_stream() -> None:
    async def main() -> None:
        world = World()
        world.record(3)
        feed, reader = world.feed(), EventReader()
        world.broken = True
        assert await during(feed.events(Position(1), None), 100.0, reader) == []
        world.broken = False
        assert ids(await during(feed.events(position_of(reader.last_id), None), 2.0)) == [2, 3]

    run_virtual(main)


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
