"""`GET /events`, a stream of Server-Sent Events: every sample once and in order, between them the jobs' progress.

Samples carry an id, so that a client can go on where it was cut off, after a restart too. Nothing is kept for a client
but its position and the look that it was last told of: each reads on in the database after what it was sent.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Protocol

import anyio
from anyio import CancelScope
from fastapi import APIRouter, Header, HTTPException, Query
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Receive, Scope, Send

from imgdiffd.api.progress import SeenProgress
from imgdiffd.api.refusals import refusal, refusals
from imgdiffd.api.sample_events import POSITION, Position, position_of, written_removals, written_samples
from imgdiffd.errors import ImgdiffdError, unknown_job
from imgdiffd.status import Status
from imgdiffd.store import JobRow, RemovalSampleRow, SampleRow

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


class Samples(Protocol):
    """What is asked of the store."""

    async def job(self, job: int) -> JobRow | None:
        """The job, or None."""

    async def newest_sample(self) -> int:
        """The highest id of a sample. Whatever is recorded later has a higher one."""

    async def samples(self, job: int | None, after: int, limit: int) -> Sequence[SampleRow]:
        """The next `limit` samples whose id is above `after`, in order of id."""

    async def newest_removal_sample(self) -> int:
        """The same of object removal's samples."""

    async def removal_samples(self, job: int | None, after: int, limit: int) -> Sequence[RemovalSampleRow]:
        """The same of object removal's samples."""


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
    """One look at the daemon: `newest` is no lower than the position of any sample that `progress` counts."""

    def __init__(self, progress: SeenProgress, newest: Position, rings: int, taken_s: float) -> None:
        self.progress = progress
        self.newest = newest
        self.rings = rings
        self.taken_s = taken_s


class Feed:
    """What all streams share: the bell, the last look at the daemon, and a limited number of places."""

    def __init__(
        self, store: Samples, status: Callable[[int | None], Awaitable[Status]], bell: Bell, *, places: int = PLACES
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

    def refusal(self, *, make_room: bool) -> str:
        """Why nobody more may listen; empty where there is room, or a client that does not read.

        That client is cut off if `make_room` says so.
        """
        if self._closed.is_set():
            return "the daemon is stopping (connect again when it is back)"
        if len(self._open) < self._places:
            return ""
        stuck = max(self._open, key=lambda scope: self._open[scope]())
        if self._open[stuck]() >= RECLAIM_S:
            if make_room:
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

    async def start(self, since: Position | None, job: int | None) -> Position:
        """The position behind which a stream begins: `since`, or the newest. Raises InputError for an unknown job."""
        if job is not None and await self._store.job(job) is None:
            raise unknown_job(job)
        newest = await self._newest()
        return newest if since is None else since.at_most(newest)

    async def _newest(self) -> Position:
        return Position(await self._store.newest_sample(), await self._store.newest_removal_sample())

    async def events(self, after: Position, job: int | None) -> AsyncGenerator[bytes]:
        """The stream behind `after`, of `job` where given, until the feed is closed."""
        try:
            # An id without data: a client cut off before the first sample goes on from here, not from a later "now".
            yield format_sse_event(id=str(after), retry=RETRY_MS)
            sent_s = anyio.current_time()
            told: SeenProgress | None = None
            look: _Look | None = None
            while (look := await self._newer(look)) is not None:
                while not after.reached(look.newest) and not self._closed.is_set():
                    after, text = await self._page(after, look.newest, job)
                    if text:
                        yield text
                        sent_s = anyio.current_time()
                text = b""
                if after.reached(look.newest):
                    seen = look.progress if job is None else await self._seen_of(job, look, told)
                    text, told = seen.event(told), seen
                if not text and anyio.current_time() - sent_s >= HEARTBEAT_S:
                    text = format_sse_event(comment="still here")
                if text:
                    yield text
                    sent_s = anyio.current_time()
        except ImgdiffdError as error:
            _log.warning("a stream of events ended: %s", error)  # its client connects again and misses nothing

    async def _seen_of(self, job: int, look: _Look, told: SeenProgress | None) -> SeenProgress:
        return SeenProgress(look.progress.of_job(job) or await self._status(job), told)

    async def _page(self, after: Position, newest: Position, job: int | None) -> tuple[Position, bytes]:
        """The next samples behind `after` as events, and the position behind them."""
        if after.sample < newest.sample:
            page = await self._store.samples(job, after.sample, PAGE)
            last = page[-1].id if page else 0
            text = written_samples(page, after)
            return after._replace(sample=last if len(page) == PAGE else max(newest.sample, last)), text
        removals = await self._store.removal_samples(job, after.removal, PAGE)
        last = removals[-1].id if removals else 0
        text = written_removals(removals, after)
        return after._replace(removal=last if len(removals) == PAGE else max(newest.removal, last)), text

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
        progress = SeenProgress(await self._status(None), None if self._last is None else self._last.progress)
        return _Look(progress, await self._newest(), rings, now_s)  # in this order: see _Look


class _Stream(StreamingResponse):  # FastAPI's own has no limit of places, no end that we choose and no heartbeat
    """The response of one client; whether there is a place is decided when it begins."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, after: Position, job: int | None) -> None:
        self._feed = feed
        self._events = feed.events(after, job)
        super().__init__(self._events, headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            if why := self._feed.refusal(make_room=True):
                await refusal(503, why, "busy")(scope, receive, send)
            else:
                respond = super().__call__
                connection = scope.get("state", {}).get("connection")
                unread_s = (lambda: 0.0) if connection is None else connection.unread_s
                await self._feed.keep(lambda: respond(scope, receive, send), unread_s)


_STREAM = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}


def routes(feed: Feed) -> APIRouter:
    """The route `/events`, to be included in the API."""
    router = APIRouter()

    @router.get("/events", status_code=200, response_class=Response, responses={200: _STREAM, **refusals(404)})
    async def events(
        since: Annotated[
            str | None,
            Query(
                description="samples behind this id, such as 12.3; 0 for all",
                json_schema_extra={"pattern": f"^{POSITION}$"},  # `position_of` refuses others in its own words
            ),
        ] = None,
        job: Annotated[int | None, Query(ge=1, le=_MOST, description="only of this job")] = None,
        last_event_id: Annotated[str | None, Header(description="the last id that came; overrides `since`")] = None,
    ) -> _Stream:
        """Samples as they are recorded, each with its id, and the jobs' progress; from now on where no id is given."""
        if why := feed.refusal(make_room=False):  # at once: a crowd that waited for the database would be at work
            raise HTTPException(503, why)
        last = since if last_event_id is None else last_event_id
        return _Stream(feed, await feed.start(None if last is None else position_of(last), job), job)

    return router
