"""A Server-Sent Events client that follows the standard strictly and accepts bytes cut anywhere."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """A dispatched event; `id` is the last event ID that the client would then send back."""

    kind: str
    id: str
    data: Any


class EventReader:
    """Turns bytes into events by section 9.2.6 of the HTML standard; an incomplete event is dropped."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_ms = 0
        self.comments = 0
        self._rest = b""
        self._id = last_id
        self._kind = ""
        self._data: list[str] = []

    def feed(self, received: bytes) -> list[Event]:
        """The events that `received` completes."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [event for line in lines if (event := self._line(line.decode())) is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "":
                self.comments += 1
            case "id":
                self._id = value
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
            case "retry":
                self.retry_ms = int(value)
            case _:
                raise AssertionError(f"not a field of the standard: {line!r}")
        return None

    def _dispatch(self) -> Event | None:
        self.last_id = self._id  # before the data is looked at: an id alone counts
        kind, data, self._kind, self._data = self._kind, self._data, "", []
        return Event(kind, self.last_id, json.loads("\n".join(data))) if data else None
