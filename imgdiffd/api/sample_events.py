"""Samples of both kinds as events, and the position in a stream behind each of them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from fastapi.sse import format_sse_event
from pydantic import BaseModel

from imgdiffd.errors import InputError
from imgdiffd.store import RemovalSampleRow, SampleRow

POSITION = r"[0-9]{1,19}(\.[0-9]{1,19})?"


class SampleEvent(BaseModel):
    """A sample that was recorded. Its images' paths are relative to the image folder; the box is in their pixels.

    `key` is the same on every machine that makes this sample.
    """

    id: int
    key: str
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


class RemovalSampleEvent(BaseModel):
    """A sample of object removal that was recorded; `object` counts within its `image` (1 or 2) of caption `item`.

    The images' paths are relative to the image folder; `bbox` is in 0–1. `answer` is the letter of the image that still
    has the object, and `key` as in a sample.
    """

    id: int
    key: str
    job: int
    item: int
    image: int
    object: int
    bbox: tuple[float, float, float, float]
    left_image: str
    right_image: str
    question: str
    answer: str
    created_at: float


class Position(NamedTuple):
    """The numbers of the last sample and of the last removal sample that were sent, written as `12.3`."""

    sample: int = 0
    removal: int = 0

    def __str__(self) -> str:
        return f"{self.sample}.{self.removal}"

    def at_most(self, newest: "Position") -> "Position":
        """The position, or the newest where it is beyond that: it then came from another database."""
        return Position(min(self.sample, newest.sample), min(self.removal, newest.removal))

    def reached(self, newest: "Position") -> bool:
        """Whether everything up to `newest` was sent."""
        return self.sample >= newest.sample and self.removal >= newest.removal


def position_of(text: str) -> Position:
    """The position that a client sends back. A number alone, as earlier versions sent it, has no removal sample yet.

    Raises InputError for anything else.
    """
    if not re.fullmatch(POSITION, text, re.ASCII):
        raise InputError(
            f"{text[:40]!r} is not the id of an event",
            code="bad_event_id",
            hint="send the id of the last event that came, such as 12.3, or none",
        )
    return Position(*map(int, text.split(".")))


def written_samples(page: Sequence[SampleRow], position: Position) -> bytes:
    """The events of `page`, which follows `position`."""
    return b"".join(
        format_sse_event(
            event="sample", id=str(position._replace(sample=row.id)), data_str=_sample(row).model_dump_json()
        )
        for row in page
    )


def written_removals(page: Sequence[RemovalSampleRow], position: Position) -> bytes:
    """The events of `page`, which follows `position`."""
    return b"".join(
        format_sse_event(
            event="removal_sample", id=str(position._replace(removal=row.id)), data_str=_removal(row).model_dump_json()
        )
        for row in page
    )


def _sample(row: SampleRow) -> SampleEvent:
    left, right = (row.text1, row.text2) if row.left == 1 else (row.text2, row.text1)
    return SampleEvent(
        id=row.id,
        key=row.key,
        job=row.job,
        item=row.item,
        region=row.region,
        box=row.box,
        left_image=row.left_image,
        right_image=row.right_image,
        left_text=left,
        right_text=right,
        difference=row.difference,
        created_at=row.created_at,
    )


def _removal(row: RemovalSampleRow) -> RemovalSampleEvent:
    sample = row.sample
    x1, y1, x2, y2 = sample.bbox
    return RemovalSampleEvent(
        id=row.id,
        key=sample.key,
        job=row.job,
        item=sample.erasure.item,
        image=sample.erasure.image,
        object=sample.erasure.index,
        bbox=(x1, y1, x2, y2),
        left_image=sample.left,
        right_image=sample.right,
        question=sample.question,
        answer=sample.answer,
        created_at=row.created_at,
    )
