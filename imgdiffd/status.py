"""What the daemon says of itself: the records that the API sends and the client reads, and its one-line summary."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from imgdiffd.errors import counted
from imgdiffd.job import TERMINAL_JOB_STATES, JobState
from imgdiffd.pipeline import Stage


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class StageView(_Record):
    """One stage of one job, in items. `waiting` are at this stage now, `passed` went beyond it, `stopped` ended in it.

    `upstream` may still arrive; `cancelled` never will, since their job was cancelled. Both are estimated from the
    shares that earlier stages have let pass. `seconds_per_item` is measured, 0 before the first batch.
    """

    stage: Stage
    waiting: int
    passed: int
    stopped: int
    upstream: int
    cancelled: int = 0
    seconds_per_item: float

    @property
    def done(self) -> int:
        """Items that this stage has dealt with."""
        return self.passed + self.stopped

    @property
    def expected(self) -> int:
        """Items that this stage will probably have seen in the end, or would have, had the job not been cancelled."""
        return self.done + self.waiting + self.upstream + self.cancelled


class RemovalView(_Record):
    """Object removal from pairs of images: how many wait for it, and what came of the others."""

    waiting: int = 0
    sampled: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    samples: int = 0

    @property
    def done(self) -> int:
        """Pairs on which it was tried."""
        return self.sampled + self.rejected + self.failed

    @property
    def total(self) -> int:
        """All pairs on which it was ever to be tried."""
        return self.done + self.waiting + self.cancelled


class GateView(_Record):
    """Pairs that the similarity gate rejected, by side. `half_painted` of them were given up for their preview."""

    too_different: int = 0
    too_similar: int = 0
    half_painted: int = 0


class JobView(_Record):
    """One job. Times are UNIX seconds.

    `eta_s` is the time until its last caption is done, what goes before it included. It is None of jobs that are not
    active, while all work is held back, before the first batch, and in answers to orders.
    """

    id: int
    name: str
    state: str
    profile: str
    priority: int = 0
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
    gate: GateView = GateView()
    eta_s: float | None = None
    removal: RemovalView = RemovalView()  # goes on after the job has ended


class JobPage(_Record):
    """Some of the `total` jobs that were asked for. `next` continues the list; None at its end."""

    jobs: tuple[JobView, ...]
    total: int
    next: int | None = None


class ProblemView(_Record):
    """A record without a usable caption: its line or, in JSON and Parquet, its number, and why."""

    line: int
    reason: str
    message: str


class ProblemPage(_Record):
    """Some of a job's `total` records without a usable caption. `next` continues the list; None at its end."""

    problems: tuple[ProblemView, ...]
    total: int
    next: int | None = None


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


class OpenJobs(_Record):
    """All open jobs together: their captions, how many of those have ended, and their samples.

    `eta_s` is the time until no caption of an active job waits any more; None where no job has one.
    """

    captions: int = 0
    done: int = 0
    samples: int = 0
    eta_s: float | None = None


class Status(_Record):
    """The daemon as a whole. `problems` is empty when all is well; each entry is a sentence for people.

    `jobs` are the open ones, 1000 at most, in the order in which they are worked on, and then the newest few that have
    ended. `job_counts` counts all jobs by state, `open` sums up all open ones. `removal` sums up object removal from
    the jobs, open or not, with pairs that wait for it.
    `no_removal` says why there is no object removal; it is empty where that runs. While the daemon is `starting`, it
    knows neither jobs nor devices, and `problems` say what it waits for.
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
    job_counts: dict[JobState, int] = {}
    open: OpenJobs = OpenJobs()
    removal: RemovalView = RemovalView()
    scheduler: SchedulerView | None = None
    no_removal: str = ""
    starting: bool = False


class FunnelStep(_Record):
    """How many of what it `counts` came this far; who fell out since the step before, and how many may still come.

    The count is a share of `base`, or of nothing where that is 0. Regions and objects have no number waiting.
    """

    name: str
    count: int
    counts: Literal["captions", "regions", "pairs", "objects"] = "captions"
    base: int = 0
    lost: dict[str, int] = {}
    waiting: int = 0


class Funnel(_Record):
    """Every narrowing from captions to samples, of one job or of all.

    Steps that count captions have as many as the one before them, less those lost and those waiting; so have those
    that count pairs, which are object removal's. `ends` says what has become of the captions so far, and of the pairs:
    each adds up to the first step.
    """

    steps: tuple[FunnelStep, ...]
    ends: tuple[FunnelStep, ...] = ()


class RefilteredJob(_Record):
    """A new job with captions of an older one, `of`, under another profile; `samples` are those it has already."""

    job: int
    of: int
    name: str
    captions: int
    samples: int


class Refiltered(_Record):
    """What became of captions that ended, under another profile.

    `sampled` and `rejected` ended at once, `waiting` counts the others by the stage that they wait for. `painted` of
    them have their pair painted, which takes a device `paint_s` seconds, if the past tells.
    """

    captions: int
    sampled: int
    rejected: int
    waiting: dict[Stage, int]
    painted: int
    paint_s: float | None
    jobs: tuple[RefilteredJob, ...]


def about(seconds: float) -> str:
    """Roughly how long: `less than a minute`, `about 5 min`, `about 3 h`, `about 2 days`."""
    minutes = seconds / 60
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"about {minutes:.0f} min"
    return f"about {minutes / 60:.0f} h" if minutes < 48 * 60 else f"about {minutes / (24 * 60):.0f} days"


def headline(status: Status) -> str:
    """The daemon in one line: whether it is paused, what is wrong, which devices work, how far the open jobs are."""
    if status.starting:
        return "; ".join([summary(status), *status.problems])
    return "; ".join([*(["paused"] if status.paused else []), *status.problems, summary(status)])


def summary(status: Status) -> str:
    """Which devices work, how far the open jobs are, and how long they take."""
    if status.starting:
        return "starting"
    ready = sum(device.state == "ready" for device in status.devices)
    parts = [f"{ready} of {counted(len(status.devices), 'device')} ready"] if status.devices else []
    if opened := sum(number for state, number in status.job_counts.items() if state not in TERMINAL_JOB_STATES):
        work = status.open
        parts.append(f"open jobs: {opened}, captions: {work.done} of {work.captions}, samples: {work.samples}")
    else:
        parts.append("no job is open")
    if status.open.eta_s is not None and not status.paused:
        parts.append(f"{about(status.open.eta_s)} left")
    if status.removal.waiting and not status.no_removal:
        removal = status.removal
        parts.append(f"object removal: {removal.done} of {removal.total} pairs, samples: {removal.samples}")
    return "; ".join(parts)
