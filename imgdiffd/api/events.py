"""`GET /events`, a stream of Server-Sent Events: every sample once and in order, between them the jobs as they stand.

Samples carry their row's number, so that a client can go on where it was cut off, after a restart too. The jobs are
always sent whole, so that the newest event replaces those before it. Nothing is kept for a client: each reads on in the
database after what it was sent.
"""

import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Protocol

import anyio
from anyio import CancelScope
from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from imgdiffd.api.refusals import refusal, refusals
from imgdiffd.errors import ImgdiffdError, InputError, unknown_job
from imgdiffd.status import JobView, Status
from imgdiffd.store import JobRow, SampleRow

_log = logging.getLogger(__name__)

RETRY_MS = 2000  # that a client waits before it connects again
PAGE = 100  # samples read, and held in memory, at once
PACE_S = 1.0  # between two looks, however much is recorded
QUIET_S = 5.0  # between two looks where nothing is recorded: faults of devices or of the inbox leave no record
HEARTBEAT_S = 15.0
CLOSE_S = 1.0  # that a client has to take what it was sent, before it is cut off
PLACES = 64
RECLAIM_S = 5.0  # a client that has read nothing for so long makes room for another
_MOST = 2**63 - 1


class SampleEvent(BaseModel):
    """A sample that was recorded. Its images' paths are relative to the image folder; the box is in their pixels."""

    id: int
    job: int
    item: int
    region: int
    box: tuple[int, int, int, int]
    left_image: str
    right_image: str
    left_text: str
    right_text: str
    difference: str
    created_at: float


class ProgressEvent(BaseModel):
    """The daemon and its jobs, or the one job that was asked for. Every sample that it counts was sent before it."""

    ready: bool
    paused: bool
    problems: tuple[str, ...]
    jobs: tuple[JobView, ...]


class Samples(Protocol):
    """What is asked of the store."""

    async def job(self, job: int) -> JobRow | None:
        """The job, or None."""

    async def newest_sample(self) -> int:
        """The highest id of a sample. Whatever is recorded later has a higher one."""

    async def samples(self, job: int | None, after: int, limit: int) -> Sequence[SampleRow]:
        """The next `limit` samples whose id is above `after`, in order of id."""


class Bell:
    """Rung when something was recorded. Whoever waits says how many rings it knows of, so that none is missed."""

    def __init__(self) -> None:
        self.rings = 0
        self._next: anyio.Event | None = None

    def ring(self) -> None:
        """Wake everyone who waits."""
        self.rings += 1
        if self._next is not None:
            self._next.set()
            self._next = None

    async def after(self, rings: int) -> None:
        """Return once there were more than `rings`."""
        while self.rings <= rings:
            if self._next is None:
                self._next = anyio.Event()
            await self._next.wait()


class _Look:
    """What one look at the daemon saw: `newest` is no lower than the id of any sample that `status` counts."""

    def __init__(self, status: Status, newest: int, rings: int, taken_s: float) -> None:
        self.newest = newest
        self.rings = rings
        self.taken_s = taken_s
        self._status = status
        self._written: dict[int | None, bytes] = {}

    def progress(self, job: int | None) -> bytes:
        """The event of one job, or of all, written once for everyone who asks for it."""
        if job not in self._written:
            status = self._status
            jobs = status.jobs if job is None else tuple(view for view in status.jobs if view.id == job)
            event = ProgressEvent(ready=status.ready, paused=status.paused, problems=status.problems, jobs=jobs)
            self._written[job] = format_sse_event(event="progress", data_str=event.model_dump_json())
        return self._written[job]


def _written(sample: SampleRow) -> bytes:
    left, right = (sample.text1, sample.text2) if sample.left == 1 else (sample.text2, sample.text1)
    event = SampleEvent(
        id=sample.id,
        job=sample.job,
        item=sample.item,
        region=sample.region,
        box=sample.box,
        left_image=sample.left_image,
        right_image=sample.right_image,
        left_text=left,
        right_text=right,
        difference=sample.difference,
        created_at=sample.created_at,
    )
    return format_sse_event(event="sample", id=str(sample.id), data_str=event.model_dump_json())


class Feed:
    """What all streams share: the bell, the last look at the daemon, and a limited number of places."""

    def __init__(
        self, store: Samples, status: Callable[[], Awaitable[Status]], bell: Bell, *, places: int = PLACES
    ) -> None:
        """`bell` must be rung after everything that the database records."""
        self._store = store
        self._status = status
        self._bell = bell
        self._places = places
        self._open: dict[CancelScope, Callable[[], float]] = {}  # each with the seconds for which it was not read
        self._left = Bell()
        self._closed = anyio.Event()
        self._looking = anyio.Lock()
        self._last: _Look | None = None

    async def close(self) -> None:
        """End all streams and take no more: those that are read end in order, the others are cut off after CLOSE_S."""
        self._closed.set()
        self._bell.ring()
        with anyio.move_on_after(CLOSE_S):
            await self._empty()
        for scope in self._open:
            scope.cancel()
        await self._empty()

    async def _empty(self) -> None:
        while self._open:
            await self._left.after(self._left.rings)

    def refusal(self) -> str:
        """Why nobody more may listen; empty where there is room, or where a client that does not read makes room."""
        if self._closed.is_set():
            return "the daemon is stopping (connect again when it is back)"
        if len(self._open) < self._places:
            return ""
        stuck = max(self._open, key=lambda scope: self._open[scope]())
        if self._open[stuck]() >= RECLAIM_S:
            stuck.cancel()
            del self._open[stuck]
            return ""
        return f"{self._places} streams of events are open, no more are served (close one, or poll /status)"

    async def keep(self, stream: Callable[[], Awaitable[None]], unread_s: Callable[[], float]) -> None:
        """Let `stream` run in a place of its own, until it or all streams end."""
        with CancelScope() as scope:
            self._open[scope] = unread_s
            try:
                await stream()
            finally:
                self._open.pop(scope, None)
                self._left.ring()

    async def start(self, since: int | None, job: int | None) -> int:
        """The id after which a stream begins: `since`, or the newest. Raises InputError for an unknown job."""
        if job is not None and await self._store.job(job) is None:
            raise unknown_job(job)
        newest = await self._store.newest_sample()
        return newest if since is None else min(since, newest)

    async def events(self, after: int, job: int | None) -> AsyncGenerator[bytes]:
        """The stream after sample `after`, of `job` where given, until the feed is closed."""
        try:
            # An id without data: a client cut off before the first sample goes on from here, not from a later "now".
            yield format_sse_event(id=str(after), retry=RETRY_MS)
            sent_s, shown = anyio.current_time(), b""
            look: _Look | None = None
            while (look := await self._newer(look)) is not None:
                while after < look.newest and not self._closed.is_set():
                    page = await self._store.samples(job, after, PAGE)
                    after = page[-1].id if len(page) == PAGE else max(look.newest, page[-1].id if page else 0)
                    if page:
                        yield b"".join(map(_written, page))
                        sent_s = anyio.current_time()
                if after >= look.newest and (text := look.progress(job)) != shown:
                    yield text
                    sent_s, shown = anyio.current_time(), text
                elif anyio.current_time() - sent_s >= HEARTBEAT_S:
                    yield format_sse_event(comment="still here")
                    sent_s = anyio.current_time()
        except ImgdiffdError as error:
            _log.warning("a stream of events ended: %s", error)  # its client connects again and misses nothing

    async def _newer(self, known: _Look | None) -> _Look | None:
        """The next look after `known`, one for all who wait; None once the feed is closed."""
        if known is not None:
            with anyio.move_on_after(QUIET_S):
                await self._bell.after(known.rings)
            with anyio.move_on_after(known.taken_s + PACE_S - anyio.current_time()):
                await self._closed.wait()
        async with self._looking:
            if self._closed.is_set():
                return None
            last = self._last
            if last is None or last is known or self._stale(last):
                last = self._last = await self._look()
            return last

    def _stale(self, look: _Look) -> bool:
        age_s = anyio.current_time() - look.taken_s
        return age_s >= (PACE_S if self._bell.rings > look.rings else QUIET_S)

    async def _look(self) -> _Look:
        rings, now_s = self._bell.rings, anyio.current_time()
        status = await self._status()
        return _Look(status, await self._store.newest_sample(), rings, now_s)  # in this order: see _Look


class _Stream(StreamingResponse):  # FastAPI's own has no limit of places, no end that we choose and no heartbeat
    """The response of one client; whether there is a place is decided when it begins."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, after: int, job: int | None) -> None:
        self._feed = feed
        self._events = feed.events(after, job)
        super().__init__(self._events, headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            if why := self._feed.refusal():
                await refusal(503, why, "busy")(scope, receive, send)
            else:
                respond = super().__call__
                connection = scope.get("state", {}).get("connection")
                unread_s = (lambda: 0.0) if connection is None else connection.unread_s
                await self._feed.keep(lambda: respond(scope, receive, send), unread_s)


def _id_of(header: str | None) -> int | None:
    """The number that a client sends back. Raises InputError for anything else."""
    if header is None:
        return None
    if not re.fullmatch("[0-9]{1,19}", header):
        raise InputError(
            f"Last-Event-ID: {header[:40]!r} is not the number of an event",
            code="bad_event_id",
            hint="send the id of the last event that came, or no such header",
        )
    return int(header)


def routes(feed: Feed) -> APIRouter:
    """The route `/events`, to be included in the API."""
    router = APIRouter()

    @router.get("/events", status_code=200, response_class=_Stream, responses=refusals(404, 503))
    async def events(
        since: Annotated[int | None, Query(ge=0, le=_MOST, description="samples above this id; 0 for all")] = None,
        job: Annotated[int | None, Query(ge=1, le=_MOST, description="only of this job")] = None,
        last_event_id: Annotated[str | None, Header(description="the last id that came; overrides `since`")] = None,
    ) -> _Stream:
        """Samples as they are recorded, each with its id, and the jobs' progress; from now on where no id is given."""
        last = _id_of(last_event_id)
        return _Stream(feed, await feed.start(since if last is None else last, job), job)

    return router
