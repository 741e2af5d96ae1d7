"""Finished samples, and the story of a caption: the records in which the store tells of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from imgdiffd.job import ItemState
from imgdiffd.method.messages import Box, Scores
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal import RemovalSample
from imgdiffd.method.removal_messages import Erasure
from imgdiffd.pipeline import Stage
from imgdiffd.store.rows import JobRow


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A finished sample with everything needed to export it. Image paths are relative to the image folder.

    `bar_px` is the width of the black bar that stands between the two images where they are joined.
    """

    id: int
    key: str
    item: int
    job: int
    job_name: str
    profile: str
    group: str
    source: str
    source_id: str
    line: int
    attempt: int
    caption1: str
    caption2: str
    nouns1: tuple[str, ...]
    nouns2: tuple[str, ...]
    image1: str
    image2: str
    width: int
    height: int
    rewrite_seed: int | None  # None: not known, as of an imported sample
    generate_seed: int | None
    pair_scores: Scores
    region: int
    image: int
    box: Box
    scores: Scores
    text1: str
    text2: str
    left: int
    difference: str
    left_image: str
    right_image: str
    bar_px: int
    created_at: float


@dataclass(frozen=True, slots=True)
class RemovalSampleRow:
    """A finished sample of object removal; every later one has a higher `id`."""

    id: int
    job: int
    sample: RemovalSample
    created_at: float


@dataclass(frozen=True, slots=True)
class RemovalRow:
    """A finished sample of object removal with everything needed to export it.

    `scores` are those of its object; the captions, nouns and `pair_scores` are those of the pair it was erased from.
    """

    job: int
    profile: str
    caption1: str
    caption2: str
    nouns1: tuple[str, ...]
    nouns2: tuple[str, ...]
    pair_scores: Scores
    scores: Scores
    bar_px: int
    sample: RemovalSample
    source_id: str = ""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A region that was described and then rejected, as the sample that it did not become.

    `sample` has neither a number nor images with boxes; `settings` is the profile that its caption was worked on under.
    """

    sample: SampleRow
    reason: str
    settings: Profile


@dataclass(frozen=True, slots=True)
class RewriteRow:
    """One attempt at rewriting; `reason` is '' if it was accepted."""

    attempt: int
    answer: str | None
    truncated: bool
    caption_tokens: int
    answer_tokens: int
    seed: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class PairRow:
    """The pair of an item; images, scores and the judge's answer are empty until their stages have run."""

    caption2: str
    nouns1: tuple[str, ...]
    nouns2: tuple[str, ...]
    image1: str
    image2: str
    width: int
    height: int
    seed: int
    scores: Scores
    answer: str = ""


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A box that was found, and why it was dropped ('' if it was not)."""

    image: int
    box: Box
    scores: Scores
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RegionRow:
    """A chosen box with its texts; `reason` says why a later stage rejected it, `answer` what the judge said of it."""

    number: int
    candidate: int
    image: int
    box: Box
    scores: Scores
    text1: str
    text2: str
    left: int
    difference: str
    reason: str
    detail: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class ErasureRow:
    """An erased object; texts, scores and images are empty until it is inspected, `reason` is '' unless it failed.

    `holder` is the side of the sample that still has the object, `letter` the sample's answer.
    """

    erasure: Erasure
    text: str
    scores: Scores
    holder: str
    letter: str
    with_image: str
    without_image: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RemovalStory:
    """Everything known about the item that object removal derived from a caption; `found` are all boxes it found."""

    item: int
    stage: Stage
    state: ItemState
    attempt: int
    crashes: int
    reason: str
    detail: str
    created_at: float
    updated_at: float
    found: tuple[CandidateRow, ...]
    erasures: tuple[ErasureRow, ...]


@dataclass(frozen=True, slots=True)
class ItemStory:
    """Everything known about one caption and the item derived from it.

    `sampling` says by what a model writes how its tokens are chosen: all that is in force, whatever else the
    checkpoint's own generation configuration suggests. `profile` is None if it was imported: nobody knows its settings.
    `profiles` are those under which the region with that number is a sample, by name: the caption's work may be shared
    by jobs under several.
    """

    item: int
    job: JobRow
    profile: Profile | None
    sampling: Mapping[str, Mapping[str, float]]
    line: int
    source_id: str
    caption: str
    stage: Stage
    state: ItemState
    attempt: int
    crashes: int
    reason: str
    detail: str
    created_at: float
    updated_at: float
    rewrites: tuple[RewriteRow, ...]
    pair: PairRow | None
    candidates: tuple[CandidateRow, ...]
    regions: tuple[RegionRow, ...]
    samples: tuple[SampleRow, ...]
    removal: RemovalStory | None = None  # None: object removal never began with its pair
    profiles: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
