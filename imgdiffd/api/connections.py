"""The API's connections: bounded in number, and dropped where the client neither sends nor reads."""

import asyncio
import fcntl
import json
import logging
import socket
import termios
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

_log = logging.getLogger(__name__)

MOST = 256  # open at once; beyond this, whoever has kept us waiting longest goes, where anybody has
AT_WORK = 512  # beyond this, even if all of them are at work, a new one is refused
BACKLOG = MOST // 2  # accepted in one turn: an accepted connection is read before newer ones can push it out
IDLE_S = 15.0  # without a whole request head; longer than the 5 s for which httpx reuses a connection
BODY_S = 60.0  # in which a request's body brings BODY_BYTES, or ends
BODY_BYTES = 1024
UNREAD_S = 30.0  # in which a client reads something of what it was sent
SWEEP_S = 1.0
HEAD_BYTES = 64 << 10  # of a request's line and headers; more than every parameter at its longest, percent-encoded
IDLE = "no request"


class Wait(NamedTuple):
    """What a connection has waited for its client to do, for how long, and how long it may."""

    what: str
    seconds: float
    limit_s: float


class _BoundedHeads(h11.Connection):
    """The server's side of HTTP/1.1, whose clients send heads of at most HEAD_BYTES, whole or in parts."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11's, which bounds a head only as long as it is not complete."""
        before = len(self.trailing_data[0]) if self.their_state is h11.IDLE else 0
        event = super().next_event()
        if isinstance(event, h11.Request) and before - len(self.trailing_data[0]) > HEAD_BYTES:
            raise h11.RemoteProtocolError("the head is too long", error_status_hint=431)
        return event


class Connection(H11Protocol):
    """One connection. Requests find it in their scope, as `state["connection"]`."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.conn = _BoundedHeads()
        self._idle_since = self._body_since = self._read_at = self.loop.time()
        self._body_bytes = 0
        self._unread = 0  # bytes, as of the last look
        self._resumed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection's place, from another where there are too many."""
        super().connection_made(transport)
        if len(self.connections) <= MOST:
            return
        others = [each for each in self.connections if isinstance(each, Connection) and each is not self]
        if (idler := _longest_waiting(others)) is not None:
            idler.drop()
        elif len(others) >= AT_WORK:
            self._refuse(503, f"{AT_WORK} connections are at work (try again later)", "busy")

    def data_received(self, data: bytes) -> None:
        """Count what came of a body before it is handled."""
        self._body_bytes += len(data)
        if self._body_bytes >= BODY_BYTES:
            self._body_bytes, self._body_since = 0, self.loop.time()
        super().data_received(data)

    def handle_events(self) -> None:
        """Begin to wait for a body where a request has begun."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._body_bytes, self._body_since = 0, self.loop.time()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        self._resumed = True
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP with a sentence, where no response has begun yet."""
        hint = f"send HTTP/1.1 with a head of at most {HEAD_BYTES >> 10} KiB, as curl --unix-socket does"
        self._refuse(400, f"{msg.rstrip('.')} ({hint})", "bad_request")

    def _refuse(self, status: int, detail: str, code: str) -> None:
        body = json.dumps({"detail": detail, "code": code}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(body)).encode()))
        try:
            head = self.conn.send(h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]))
            self.transport.write(head + self.conn.send(h11.Data(data=body)) + self.conn.send(h11.EndOfMessage()))
        except h11.LocalProtocolError as error:  # in the middle of a response
            _log.debug("api: closed a connection that sent garbage: %s", error)
        self.transport.close()

    def unread_s(self) -> float:
        """For how long, as of the last look, the client has read nothing of what waits for it; 0 if nothing does."""
        return self.loop.time() - self._read_at if self._unread else 0.0

    def look(self) -> None:
        """Find out whether the client has read anything since the last look."""
        unread = self.transport.get_write_buffer_size() + _queued(self.transport)
        if not unread or unread < self._unread or not self._unread or self._resumed:
            self._read_at = self.loop.time()
        self._unread, self._resumed = unread, False

    def wait(self) -> Wait | None:
        """What the connection waits for its client to do; None while it is the daemon's turn."""
        now_s = self.loop.time()
        if self._unread:
            return Wait("unread answer", now_s - self._read_at, UNREAD_S)
        if self.cycle is None or self.cycle.response_complete:
            return Wait(IDLE, now_s - self._idle_since, IDLE_S)
        if self.cycle.more_body and not self.cycle.body and not self.flow.read_paused:
            return Wait("stalled upload", now_s - self._body_since, BODY_S)
        return None

    def drop(self) -> None:
        """End the connection at once, whatever is under way on it."""
        self.connections.discard(self)
        self.transport.abort()


def _queued(transport: asyncio.Transport) -> int:
    """What lies in the kernel for the client to read, in bytes with their overhead."""
    found: socket.socket = transport.get_extra_info("socket")
    count = array("i", [0])
    try:
        fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, count)
    except OSError:  # it was closed just now
        return 0
    return count[0]


def _longest_waiting(connections: Collection[Connection]) -> Connection | None:
    """The connection to give up: one without a request before one that stalls; None if all are at work."""
    waits = [(wait, each) for each in connections if (wait := each.wait())]
    return max(waits, key=lambda found: (found[0].what == IDLE, found[0].seconds))[1] if waits else None


def sweep(connections: Collection[Any]) -> None:
    """Drop every connection whose client has kept it waiting for too long."""
    dropped: Counter[str] = Counter()
    for each in [each for each in connections if isinstance(each, Connection)]:
        each.look()
        wait = each.wait()
        if wait is not None and wait.seconds > wait.limit_s:
            dropped[f"{wait.what} for {wait.limit_s:g} s"] += 1
            each.drop()
    for why, number in dropped.items():
        level = logging.DEBUG if why.startswith(IDLE) else logging.INFO  # the former is the end of every connection
        _log.log(level, "api: dropped %d of %d connections: %s", number, number + len(connections), why)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the daemon stops it in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections, beside what uvicorn does ten times a second."""
        if counter % round(10 * SWEEP_S) == 0:
            sweep(self.server_state.connections)
        return await super().on_tick(counter)

    def let_go(self) -> None:
        """Accept nobody any more, and end each connection behind the answer that is under way on it."""
        for listening in getattr(self, "servers", ()):  # which it has once it has begun to listen
            listening.close()
        for each in list(self.server_state.connections):
            each.shutdown()


async def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Answer on `listener`, which is closed afterwards, until cancelled."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=3600,  # never: the sweep drops idle connections
        timeout_graceful_shutdown=2,
        log_config=None,
        log_level="error",  # its warnings are about requests that are not HTTP: anybody could fill the log
        access_log=False,
        lifespan="off",
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    finally:
        server.let_go()
