"""A listener of `/events` that hangs up every so often, as programs do."""

from pathlib import Path
from threading import Event
from time import monotonic

import httpx

HANG_UP_S = 20.0


def listen(socket: Path, stop: Event) -> None:
    """Follow the daemon's events, on one connection after another, until `stop` is set."""
    while not stop.is_set():
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(transport=transport, base_url="http://imgdiffd", timeout=60) as http:
            until = monotonic() + HANG_UP_S
            with http.stream("GET", "/events") as answer:
                for _ in answer.iter_bytes():
                    if stop.is_set() or monotonic() > until:
                        break
