"""What the store answers with: frozen records, one for each kind of answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imgdiffd.job import CaptionProblem, CaptionRecord, ItemState, JobState
from imgdiffd.method.messages import Box, Scores
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal_messages import Erasure
from imgdiffd.pipeline import DEPTH, Pipeline, Stage, Task

Whole = tuple[Sequence[CaptionRecord], Sequence[CaptionProblem]]  # everything that a file brings


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job. `states` counts its captions; `duplicate_of` is the job that already did the same content and profile."""

    id: int
    name: str
    source: str
    sha256: str
    profile: str
    group: str
    priority: int
    state: JobState
    created_at: float
    finished_at: float | None
    total: int
    duplicates: int
    problems: int
    duplicate_of: int | None
    error: str
    states: Mapping[ItemState, int]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch's results.

    `tasks` are the follow-ups of items whose job runs, `finished` the items that ended, `stale` how many results no
    longer matched their item and were dropped, `done_jobs` the jobs that ended with this batch. `settled` are the
    captions (origins of derived items) whose images may no longer be wanted: of all that ended or came too late.
    """

    tasks: tuple[Task, ...]
    finished: tuple[int, ...]
    stale: int
    done_jobs: tuple[int, ...]
    settled: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the items of one pipeline are: counts by stage and state, where an item's stage is where it ended.

    `lost` counts those that were rejected or failed, by stage and reason.
    """

    stages: Mapping[Stage, Mapping[ItemState, int]]
    lost: Mapping[Stage, Mapping[str, int]]
    samples: int

    @property
    def total(self) -> int:
        """All items, wherever they are."""
        return sum(sum(states.values()) for states in self.stages.values())

    def in_state(self, state: ItemState) -> int:
        """Items in `state`, whatever their stage."""
        return sum(states.get(state, 0) for states in self.stages.values())

    def passed(self, stage: Stage) -> int:
        """Items that `stage` let through."""
        beyond = sum(sum(states.values()) for other, states in self.stages.items() if DEPTH[other] > DEPTH[stage])
        return beyond + self.stages.get(stage, {}).get(ItemState.SAMPLED, 0)


ProgressOf = Mapping[Pipeline, Progress]


@dataclass(frozen=True, slots=True)
class FunnelCounts:
    """From captions to samples, with what was lost where.

    `verdicts` count parts of items by stage and reason, '' being those that passed: answers (rewrite), pairs (vet),
    boxes (locate, erase), regions (describe, contrast, render), objects (inspect).
    """

    duplicates: int
    problems: int
    progress: ProgressOf
    verdicts: Mapping[Stage, Mapping[str, int]]

    def passed(self, stage: Stage) -> int:
        """Parts that passed in `stage`."""
        return self.verdicts.get(stage, {}).get("", 0)

    def judged(self, stage: Stage) -> int:
        """Parts that got a verdict in `stage`."""
        return sum(self.verdicts.get(stage, {}).values())


@dataclass(frozen=True, slots=True)
class Timing:
    """What a stage has cost on a device so far; `seconds` is the stage function's own time."""

    stage: Stage
    device: str
    batches: int
    items: int
    seconds: float
    last_at: float


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A finished sample with all it takes to export it. Image paths are relative to the image folder."""

    id: int
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
    rewrite_seed: int
    generate_seed: int
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
    created_at: float


@dataclass(frozen=True, slots=True)
class RewriteRow:
    """One attempt at rewriting; `reason` is '' where it was accepted."""

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
    """The pair of an item; images, scores and the judge's answer are empty before their stages."""

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
    """A box that was found, and why it was not taken ('' where it was)."""

    image: int
    box: Box
    scores: Scores
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class RegionRow:
    """A chosen box with its texts; `reason` says what a later stage held against it."""

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


@dataclass(frozen=True, slots=True)
class ErasureRow:
    """An erased object; texts, scores and images are empty before it was inspected, `reason` is '' while it is in.

    `holder` is the side of the sample that still holds the object, `letter` its answer.
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
    """Everything known of the item that object removal derived from a caption. `found` are all boxes it found."""

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
    """Everything known of one caption and of what was derived from it."""

    item: int
    job: JobRow
    profile: Profile
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
