"""What the daemon says of itself: the records that the API sends and the client reads, and the progress they show."""

from collections.abc import Collection, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from imgdiffd.job import TERMINAL_JOB_STATES, ItemState
from imgdiffd.pipeline import CAPTION_STAGES, DEPTH, OPTIONAL_STAGES, STAGES, Stage


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class StageView(_Record):
    """One stage of one job, in items. `waiting` are at this stage now, `passed` went beyond it, `stopped` ended in it.

    `upstream` may still arrive. `seconds_per_item` is measured, 0 before the first batch.
    """

    stage: Stage
    waiting: int
    passed: int
    stopped: int
    upstream: int
    seconds_per_item: float

    @property
    def done(self) -> int:
        """Items that need nothing more from this stage."""
        return self.passed + self.stopped

    @property
    def expected(self) -> int:
        """Items that this stage will probably have seen in the end."""
        return self.done + self.waiting + self.upstream


class RemovalView(_Record):
    """Object removal from one job's pairs: how many wait for it, and what came of the others."""

    waiting: int = 0
    sampled: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    samples: int = 0

    @property
    def done(self) -> int:
        """Pairs that need nothing more."""
        return self.sampled + self.rejected + self.failed + self.cancelled

    @property
    def total(self) -> int:
        """All pairs that object removal was ever to be tried on."""
        return self.done + self.waiting


class JobView(_Record):
    """One job. Times are UNIX seconds; `eta_s` is None while nothing was measured."""

    id: int
    name: str
    state: str
    profile: str
    created_at: float
    finished_at: float | None
    captions: int
    duplicates: int
    problems: int
    sampled: int
    rejected: int
    failed: int
    cancelled: int
    samples: int
    error: str | None
    duplicate_of: int | None
    stages: tuple[StageView, ...] = ()
    eta_s: float | None = None  # of its captions
    removal: RemovalView = RemovalView()  # goes on after the job has ended


class DeletedJob(_Record):
    """A job that was deleted with its rows and images, or that would be."""

    id: int
    name: str
    state: str
    finished_at: float | None
    captions: int
    samples: int


class DeviceView(_Record):
    """One device and its worker process."""

    name: str
    state: str  # starting, ready, restarting, parked, stopped
    detail: str
    pid: int | None
    restarts: int
    running: int
    queued: int
    busy_s: float
    roles: tuple[str, ...] = ()
    counters: dict[str, int] = {}  # how often something rare was done since the daemon started
    notes: tuple[str, ...] = ()  # what its worker does differently from what it was told


class CostView(_Record):
    """What was learnt of one stage and group on one device: mean seconds by items in a batch, and how many items fit.

    A group is a profile's number. `p99_s` is of all sizes; None before the first batch. `most_items` is None where
    memory has not run out.
    """

    stage: Stage
    group: str
    batches: int
    seconds_by_items: dict[int, float] = {}
    p99_s: float | None = None
    most_items: int | None = None


class LoadView(_Record):
    """A device as the scheduler sees it. `reason` says why it took its last batch, or why it takes none.

    `last_failure` says which batch failed there last, and what became of it. The fields at the end are not sent: a
    status has them in the DeviceView.
    """

    name: str
    up: bool
    reason: str
    reason_code: str = ""  # of imgdiffd.schedulers.reasons
    last_failure: str
    queued: dict[Stage, int]
    queued_s: float
    in_flight: int
    batches: int
    steals: int
    learnt: tuple[CostView, ...]
    running_items: int = Field(default=0, exclude=True)
    busy_s: float = Field(default=0.0, exclude=True)


class SchedulerView(_Record):
    """What is where, what was done since the start, and why. `held_back` is empty while batches are sent.

    `stranded` tasks wait for a device that has their models; `broken` batches are those whose stage raised. The fields
    at the end are not sent: a status has them itself.
    """

    devices: tuple[LoadView, ...]
    admission: str
    admission_code: str = ""  # of imgdiffd.schedulers.reasons
    held_back: tuple[str, ...]
    open_bytes: int
    queued: int
    running: int
    stranded: int
    batches_by_items: dict[Stage, dict[int, int]]
    batches_by_reason: dict[str, int] = {}  # codes of imgdiffd.schedulers.reasons
    out_of_memory: int
    deaths: int
    broken: int
    recoveries: dict[str, int] = {}  # of failed batches, by their codes
    quarantined: int
    open: int = Field(default=0, exclude=True)
    steals: int = Field(default=0, exclude=True)


class Status(_Record):
    """The daemon as a whole. `problems` is empty when all is well; each entry is a sentence for people.

    `no_removal` says why there is no object removal; it is empty where that runs.
    """

    version: str
    pid: int
    uptime_s: float
    ready: bool
    paused: bool
    problems: tuple[str, ...]
    bundle: str
    inbox: str
    open_tasks: int
    steals: int
    devices: tuple[DeviceView, ...]
    jobs: tuple[JobView, ...]
    scheduler: SchedulerView | None = None
    no_removal: str = ""


class FunnelStep(_Record):
    """One narrowing of the way from captions to samples: how many came this far, and who fell out just before.

    `base` is what the count is a share of: the step before where it is None, nothing where it is 0.
    """

    name: str
    count: int
    base: int | None = None
    lost: dict[str, int] = {}


class Funnel(_Record):
    """Every narrowing from captions to samples, of one job or of all."""

    steps: tuple[FunnelStep, ...]


def stages_of(
    counts: Mapping[Stage, Mapping[ItemState, int]],
    seconds_per_item: Mapping[Stage, float],
    skipped: Collection[Stage] = (),
) -> tuple[StageView, ...]:
    """The progress of every stage from the number of items per (stage, state).

    Stages in `skipped` are left out. What is READY waits at its stage, every other state ended there; what ended as a
    sample passed the last stage. `upstream` is corrected by the share that each earlier stage has let pass so far.
    """
    order = [stage for stage in CAPTION_STAGES if stage not in skipped]
    beyond = {stage: 0 for stage in order}
    passed_later = sum(states.get(ItemState.SAMPLED, 0) for states in counts.values())
    for stage in reversed(order):
        beyond[stage] = passed_later
        passed_later += sum(number for state, number in counts.get(stage, {}).items() if state is not ItemState.SAMPLED)
    views = []
    arriving = 0.0
    for stage in order:
        here = counts.get(stage, {})
        waiting = here.get(ItemState.READY, 0)
        stopped = sum(number for state, number in here.items() if state not in {ItemState.READY, ItemState.SAMPLED})
        views.append(
            StageView(
                stage=stage,
                waiting=waiting,
                passed=beyond[stage],
                stopped=stopped,
                upstream=round(arriving),
                seconds_per_item=seconds_per_item.get(stage, 0.0),
            )
        )
        done = beyond[stage] + stopped
        share = beyond[stage] / done if done else 1.0
        arriving = (arriving + waiting) * share
    return tuple(views)


def eta_of(stages: Sequence[StageView], devices: int, guess_s: Mapping[Stage, float]) -> float | None:
    """Seconds to the end: what is still to be done at every stage, at its measured cost, spread over the devices.

    A stage that has not run yet costs its first guess (`guess_s`, in seconds an item), scaled by how the stages that
    have run compare with theirs. None before the first batch, and without devices.
    """
    measured = [view for view in stages if view.seconds_per_item > 0]
    if not measured or not devices:
        return None
    guessed_s = sum(guess_s[view.stage] for view in measured)
    scale = sum(view.seconds_per_item for view in measured) / guessed_s if guessed_s else 1.0
    total = sum(
        (view.waiting + view.upstream) * (view.seconds_per_item or scale * guess_s[view.stage]) for view in stages
    )
    return total / devices


def stranded(jobs: Sequence[JobView], devices: Sequence[DeviceView]) -> tuple[str, ...]:
    """A sentence for each optional stage in which captions wait though no device has its models.

    That happens where an earlier daemon took a job while it ran another bundle.
    """
    found = []
    for stage in sorted(OPTIONAL_STAGES, key=DEPTH.__getitem__):
        views = (view for job in jobs if job.state == "active" for view in job.stages if view.stage is stage)
        waiting = sum(view.waiting for view in views)
        if waiting and not any(STAGES[stage].roles <= set(device.roles) for device in devices):
            found.append(f"{stage}: {waiting} captions wait, no device holds {', '.join(sorted(STAGES[stage].roles))}")
    return tuple(found)


def headline(status: Status) -> str:
    """The daemon in one line: what is wrong, which devices work, how far the open jobs are."""
    parts = [*status.problems, *(["paused"] if status.paused else [])]
    ready = sum(device.state == "ready" for device in status.devices)
    parts.append(f"{ready} of {len(status.devices)} devices ready")
    jobs = [job for job in status.jobs if job.state not in TERMINAL_JOB_STATES]
    if not jobs:
        return "; ".join([*parts, "no job is open", *_removing(status)])
    ended = sum(job.sampled + job.rejected + job.failed + job.cancelled for job in jobs)
    captions, samples = sum(job.captions for job in jobs), sum(job.samples for job in jobs)
    parts += [f"open jobs: {len(jobs)}, captions: {ended} of {captions}, samples: {samples}", *_removing(status)]
    times_s = [job.eta_s for job in jobs if job.eta_s is not None]
    return "; ".join([*parts, *([f"about {sum(times_s) / 60:.0f} min left"] if times_s else [])])


def _removing(status: Status) -> tuple[str, ...]:
    removals = [job.removal for job in status.jobs]
    if status.no_removal or not any(removal.waiting for removal in removals):
        return ()
    done, total = sum(removal.done for removal in removals), sum(removal.total for removal in removals)
    return (f"object removal: {done} of {total} pairs, samples: {sum(removal.samples for removal in removals)}",)
