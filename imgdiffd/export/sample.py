"""The one record of a sample, whatever its kind, and how those that a person chose are read from a database."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, Protocol

from imgdiffd.errors import ExportError
from imgdiffd.export import derived
from imgdiffd.export.derived import BoxStyle
from imgdiffd.export.release import QUESTION
from imgdiffd.method.agreement import agrees
from imgdiffd.method.messages import CLIP_IMAGE_COSINE, Box, Scores
from imgdiffd.method.removal import Side
from imgdiffd.method.removal_messages import NO_COSINE, Erasure
from imgdiffd.method.score_names import all_scores
from imgdiffd.store import RejectedRow, RemovalRow, SampleRow

Split = Literal["train", "validation"]
VALIDATION = 0.02  # share of the captions whose samples are kept for validation


@dataclass(frozen=True, slots=True)
class Sample:
    """A finished sample of any kind.

    `left` and `right` are its images, with the boxes drawn in, below the image folder; `plain_left` and `plain_right`
    those without boxes. `box` is in pixels of a `width` × `height` image, and `bar_px` wide is the black bar between
    the two where they are joined. `original` is the side of the image that was there first: the one painted from
    `caption` or, in a removal, the one that still holds the object. Texts and nouns are empty where none is known.
    `place` is the region's number or, in a removal, its image's and its object's. `scores` are raw; those of the whole
    pair begin with "pair.". `reason` is why a hard negative was rejected. With a `box_style`, `left` and
    `right` have no boxes yet: whoever shows them draws `box`.
    """

    key: str
    kind: str
    job: int
    item: int
    place: tuple[int, ...]
    profile: str
    split: Split
    caption: str
    caption2: str
    left: str
    right: str
    plain_left: str
    plain_right: str
    width: int
    height: int
    box: Box
    bar_px: int
    original: Side
    question: str
    answer: str
    text_left: str
    text_right: str
    noun_left: str
    noun_right: str
    scores: Scores
    reason: str = ""
    box_style: BoxStyle | None = None


class SampleSource(Protocol):
    """Where the samples of some jobs, or of all, are read: `store.Reader`."""

    def samples(self, jobs: Collection[int] | None = None) -> Iterable[SampleRow]:
        """In order of job, caption and region."""
        ...

    def removal_samples(self, jobs: Collection[int] | None = None) -> Iterable[RemovalRow]:
        """In order of job, caption, image and object."""
        ...

    def rejected_regions(self, jobs: Collection[int] | None = None) -> Iterable[RejectedRow]:
        """Those with both descriptions, in order of job, caption and region."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """Which samples are wanted: of these jobs (None: all) and kinds, the first `limit` of each kind.

    `least` are scores by name that a sample must reach; one that lacks the score does not. `validation` is the share
    of the captions whose samples are kept for validation.
    """

    jobs: Collection[int] | None = None
    kinds: Collection[str] = ("replacement", "removal")
    limit: int | None = None
    least: Mapping[str, float] = field(default_factory=dict)
    validation: float = VALIDATION


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of sample: where its rows are read, and how one becomes a record, given the share for validation."""

    rows: Callable[[SampleSource, Collection[int] | None], Iterable[Any]]
    record: Callable[[Any, float], Sample]


def split_of(caption: str, validation: float) -> Split:
    """The split of a caption's samples. It depends on the caption alone, so that no caption is ever in both."""
    drawn = int.from_bytes(hashlib.blake2b(caption.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return "validation" if drawn < validation * 2**64 else "train"


def samples(reader: SampleSource, choice: Choice) -> Iterator[Sample]:
    """The chosen samples, kind by kind, in order of job, caption and place.

    Raises ExportError at the end if no sample had a score that `choice.least` names.
    """
    known: set[str] = set()
    for name in choice.kinds:
        yield from islice(_of_kind(KINDS[name], reader, choice, known), choice.limit)
    if known and (unknown := sorted(set(choice.least) - known)):
        raise ExportError(
            f"no sample has the score {unknown[0]!r}", hint=f"the samples' scores are: {', '.join(sorted(known))}"
        )


def _of_kind(kind: Kind, reader: SampleSource, choice: Choice, known: set[str]) -> Iterator[Sample]:
    for row in kind.rows(reader, choice.jobs):
        sample = kind.record(row, choice.validation)
        known.update(sample.scores)
        # A missing score, as -inf, reaches nothing.
        if all(sample.scores.get(name, float("-inf")) >= least for name, least in choice.least.items()):
            yield sample


def _replacement(row: SampleRow, validation: float) -> Sample:
    # Each side's plain image, text and noun; the original's first.
    sides = [(row.image1, row.text1, next(iter(row.nouns1), "")), (row.image2, row.text2, next(iter(row.nouns2), ""))]
    (plain_left, text_left, noun_left), (plain_right, text_right, noun_right) = sides if row.left == 1 else sides[::-1]
    return Sample(
        key=row.key,
        kind="replacement",
        job=row.job,
        item=row.item,
        place=(row.region,),
        profile=row.profile,
        split=split_of(row.caption1 or row.source_id, validation),
        caption=row.caption1,
        caption2=row.caption2,
        left=row.left_image,
        right=row.right_image,
        plain_left=plain_left,
        plain_right=plain_right,
        width=row.width,
        height=row.height,
        box=row.box,
        bar_px=row.bar_px,
        original="left" if row.left == 1 else "right",
        question=QUESTION,
        answer=row.difference,
        text_left=text_left,
        text_right=text_right,
        noun_left=noun_left,
        noun_right=noun_right,
        scores=all_scores(row.pair_scores, row.scores),
    )


def _removal(row: RemovalRow, validation: float) -> Sample:
    made, erasure = row.sample, row.sample.erasure
    held = made.holder == "left"
    plain_left, plain_right = (erasure.source, erasure.erased) if held else (erasure.erased, erasure.source)
    return Sample(
        key=made.key,
        kind="removal",
        job=row.job,
        item=erasure.item,
        place=(erasure.image, erasure.index),
        profile=row.profile,
        split=split_of(row.caption1 or row.source_id, validation),
        caption=row.caption1,
        caption2=row.caption2,
        left=made.left,
        right=made.right,
        plain_left=plain_left,
        plain_right=plain_right,
        width=erasure.size_px,
        height=erasure.size_px,
        box=erasure.box,
        bar_px=row.bar_px,
        original=made.holder,
        question=made.question,
        answer=made.answer,
        text_left=made.caption if held else "",
        text_right="" if held else made.caption,
        noun_left="",
        noun_right="",
        scores=all_scores(row.pair_scores, {**_cosine(erasure), **row.scores}),
    )


def _cosine(erasure: Erasure) -> Scores:
    return {} if erasure.cosine == NO_COSINE else {CLIP_IMAGE_COSINE: erasure.cosine}


def _addition(row: RemovalRow, validation: float) -> Sample:
    return derived.addition(_removal(row, validation))


def _agreeing(reader: SampleSource, jobs: Collection[int] | None) -> Iterable[RejectedRow]:
    for row in reader.rejected_regions(jobs):
        if agrees(row.sample.text1, row.sample.text2, row.sample.scores, row.settings):
            yield row


def _no_difference(row: RejectedRow, validation: float) -> Sample:
    return derived.no_difference(row, _replacement(row.sample, validation))


def _hard_negative(row: RejectedRow, validation: float) -> Sample:
    return derived.hard_negative(row, _replacement(row.sample, validation))


# Every kind of sample, in the order in which an export writes them.
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "replacement": Kind(lambda reader, jobs: reader.samples(jobs), _replacement),
        "removal": Kind(lambda reader, jobs: reader.removal_samples(jobs), _removal),
        derived.ADDITION: Kind(lambda reader, jobs: reader.removal_samples(jobs), _addition),
        derived.NO_DIFFERENCE: Kind(_agreeing, _no_difference),
        derived.HARD_NEGATIVE: Kind(lambda reader, jobs: reader.rejected_regions(jobs), _hard_negative),
    }
)
