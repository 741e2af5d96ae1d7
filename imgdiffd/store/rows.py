"""The store's answers: one frozen record type for each kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imgdiffd.job import CaptionProblem, CaptionRecord, ItemState, JobState
from imgdiffd.method.messages import Box, Scores
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal import RemovalSample
from imgdiffd.method.removal_messages import Erasure
from imgdiffd.pipeline import DEPTH, Pipeline, Stage, Task

Whole = tuple[Sequence[CaptionRecord], Sequence[CaptionProblem]]  # everything that a file brings


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job; `duplicate_of` is the one that already had its content and profile."""

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


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model as source@revision, with its licence or ''. Equal `digest`s: it gives the same for the same input."""

    model: str
    licence: str
    digest: str


@dataclass(frozen=True, slots=True)
class BundleRow:
    """A bundle that works, or has worked, on jobs: its models by role."""

    name: str
    models: Mapping[str, ModelRow]

    def agrees(self, other: "BundleRow") -> bool:
        """Whether both have the same model for each role that both have: then results of one stand for the other's."""
        shared = self.models.keys() & other.models.keys()
        return all(self.models[role].digest == other.models[role].digest for role in shared)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch's results.

    `tasks` are the next tasks of items whose jobs are running, `finished` the items that ended, `stale` the number of
    results dropped because they came too late, `done_jobs` the jobs that ended with this batch. `settled` are the
    captions, behind ended items and stale results, whose images may no longer be wanted. `derived` says whether another
    pipeline got new items.
    """

    tasks: tuple[Task, ...]
    finished: tuple[int, ...]
    stale: int
    done_jobs: tuple[int, ...]
    settled: tuple[int, ...]
    derived: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the items of one pipeline are: counts by stage and state; an ended item counts where it ended.

    `lost` counts those that ended without a sample, by stage and reason, which is "cancelled" of cancelled ones.
    """

    stages: Mapping[Stage, Mapping[ItemState, int]]
    lost: Mapping[Stage, Mapping[str, int]]
    samples: int

    @property
    def total(self) -> int:
        """The number of all items."""
        return sum(sum(states.values()) for states in self.stages.values())

    def in_state(self, state: ItemState) -> int:
        """The number of items in `state`, in any stage."""
        return self.by_state().get(state, 0)

    def by_state(self) -> Mapping[ItemState, int]:
        """The number of items by state, in any stage; states that none is in may be missing."""
        counted: dict[ItemState, int] = {}
        for states in self.stages.values():
            for state, number in states.items():
                counted[state] = counted.get(state, 0) + number
        return counted

    def passed(self, stage: Stage) -> int:
        """The number of items that passed `stage`."""
        beyond = sum(sum(states.values()) for other, states in self.stages.items() if DEPTH[other] > DEPTH[stage])
        return beyond + self.stages.get(stage, {}).get(ItemState.SAMPLED, 0)


ProgressOf = Mapping[Pipeline, Progress]


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many captions of an active job wait at a stage."""

    job: int
    priority: int
    group: str
    stage: Stage
    count: int


@dataclass(frozen=True, slots=True)
class Queue:
    """The captions that wait in active jobs, and how far those of all open jobs are, by group, stage and state.

    `waiting` may be of the first jobs in the order of work alone; `backlog` sums up all active ones, by group and
    stage. `samples` are those that open jobs have.
    """

    waiting: Sequence[Waiting]
    groups: Mapping[str, Mapping[Stage, Mapping[ItemState, int]]]
    samples: int
    backlog: Mapping[tuple[str, Stage], int]


@dataclass(frozen=True, slots=True)
class FunnelCounts:
    """How captions narrowed to samples, and what was lost where.

    `verdicts` counts the parts of items by stage and reason ('' for those that passed): answers (rewrite), pairs (vet),
    boxes (locate, erase), regions (describe, contrast, render), objects (inspect).
    """

    duplicates: int
    problems: int
    progress: ProgressOf
    verdicts: Mapping[Stage, Mapping[str, int]]

    def passed(self, stage: Stage) -> int:
        """The number of parts that passed in `stage`."""
        return self.verdicts.get(stage, {}).get("", 0)

    def judged(self, stage: Stage) -> int:
        """The number of parts that were judged in `stage`."""
        return sum(self.verdicts.get(stage, {}).values())


@dataclass(frozen=True, slots=True)
class MadeRow:
    """What a job has made so far: samples of object replacement and of object removal.

    Profiles that differ in thresholds of early abort alone share a `group`: that of the first of them.
    """

    job: int
    state: JobState
    profile: str
    group: str
    captions: int
    duplicates: int
    duplicate_of: int | None
    samples: int
    removals: int


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
class Overview:
    """Some jobs with their progress, and all that is told of the others, as of one moment.

    `counts` are of all jobs. `removal` is the progress of object removal in all jobs in which pairs wait for it.
    """

    rows: Sequence[JobRow]
    progress: Mapping[int, ProgressOf]
    counts: Mapping[JobState, int]
    queue: Queue
    removal: Progress
    timings: Sequence[Timing]
    paused: bool


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
