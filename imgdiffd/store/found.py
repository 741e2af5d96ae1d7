"""What lists of samples and items are asked for, and the records that they are made of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from imgdiffd.errors import InputError
from imgdiffd.job import ItemState
from imgdiffd.method.messages import Box, Scores
from imgdiffd.pipeline import Pipeline, Stage

Order = Literal["newest", "oldest"]
_POSITION = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a list shows: what fulfils all that is given here. Bounds on scores include their values.

    A score that is missing lies within no bounds. `state`, `stage` and `reason` are of items alone.
    """

    job: int | None = None
    kind: Pipeline | None = None
    profile: str | None = None
    noun: str | None = None
    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    state: ItemState | None = None
    stage: Stage | None = None
    reason: str | None = None

    @property
    def bounded(self) -> tuple[str, ...]:
        """The scores with bounds, in the order given."""
        return tuple(dict.fromkeys((*self.least, *self.most)))


class Cursor(NamedTuple):
    """How far a list has been read, written `12.3`: the last number of each kind, 0 where it has not begun."""

    replacement: int = 0
    removal: int = 0

    def __str__(self) -> str:
        return f"{self.replacement}.{self.removal}"


def cursor_of(text: str) -> Cursor:
    """The place that `text` names. Raises InputError with code `bad_cursor`."""
    match = _POSITION.fullmatch(text)
    if match is None:
        hint = "give the `next` of the page before, such as 12.3, or none"
        raise InputError(f"no list ends at {text[:40]!r}", code="bad_cursor", hint=hint)
    return Cursor(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class ListedSample:
    """A sample of either kind; every later one of its kind has a higher `id`, and `key` is the same on every machine.

    Of object replacement, `number` is the region's and `answer` the difference caption. Of object removal, `number` is
    the object's in `image` (1 or 2), `answer` the letter of the side that still has it, and only that side has a text.
    Texts, nouns and scores that are not known are empty. The box is in pixels of an image of `width` by `height`. Image
    paths are relative to the image folder; the boxes are drawn into the images.
    """

    id: int
    key: str
    kind: Pipeline
    job: int
    item: int
    profile: str
    image: int
    number: int
    caption: str
    caption2: str
    nouns1: tuple[str, ...]
    nouns2: tuple[str, ...]
    box: Box
    width: int
    height: int
    left_image: str
    right_image: str
    left_text: str
    right_text: str
    answer: str
    scores: Scores
    created_at: float


@dataclass(frozen=True, slots=True)
class ListedItem:
    """A caption on its way through the stages or, of the kind "removal", the object removal of a caption's pair.

    `caption_item` is the number of the caption, `item` itself unless it is a removal. `scores` are the pair's.
    """

    item: int
    caption_item: int
    kind: Pipeline
    job: int
    profile: str
    line: int
    source_id: str
    caption: str
    caption2: str
    nouns1: tuple[str, ...]
    nouns2: tuple[str, ...]
    image1: str
    image2: str
    stage: Stage
    state: ItemState
    reason: str
    detail: str
    samples: int
    scores: Scores
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class SamplePage:
    """A part of a list of samples, and where the next one begins: None at the end.

    `read` is how many samples were looked at for this page: a page ends after so many even if it is not full. `total`
    is the number of all in the list, None where only reading them all would tell.
    """

    samples: tuple[ListedSample, ...]
    read: int
    total: int | None
    next: str | None

    def __len__(self) -> int:
        return len(self.samples)

    def joined(self, more: "SamplePage") -> "SamplePage":
        """This page and the one behind it."""
        return replace(more, samples=self.samples + more.samples, read=self.read + more.read)


@dataclass(frozen=True, slots=True)
class ItemPage:
    """As SamplePage, of items."""

    items: tuple[ListedItem, ...]
    read: int
    total: int | None
    next: str | None

    def __len__(self) -> int:
        return len(self.items)

    def joined(self, more: "ItemPage") -> "ItemPage":
        """This page and the one behind it."""
        return replace(more, items=self.items + more.items, read=self.read + more.read)
