"""The store's answers about jobs, queues and counts: one frozen record type for each kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imgdiffd.job import CaptionProblem, CaptionRecord, ItemState, JobState
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
