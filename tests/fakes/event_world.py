"""A made-up store and daemon for tests of the event stream on virtual time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import anyio
import anyio.lowlevel

from imgdiffd.api.events import Bell, Feed
from imgdiffd.errors import StoreError, unknown_job
from imgdiffd.method.removal import RemovalSample
from imgdiffd.method.removal_messages import Erasure
from imgdiffd.status import JobView, OpenJobs, RemovalView, Status
from imgdiffd.store import JobRow, RemovalSampleRow, SampleRow
from tests.fakes.event_stream import Event

SAMPLE = SampleRow(
    id=0, key="ab" * 16,
    item=7, job=1, job_name="a", profile="default", group="1", source="a", source_id="", line=1, attempt=1,
    caption1="a cat", caption2="a dog", nouns1=("cat",), nouns2=("dog",), image1="1.png", image2="2.png", width=64,
    height=64, rewrite_seed=1, generate_seed=2, pair_scores={}, region=0, image=1, box=(1, 2, 3, 4), scores={},
    text1="a grey cat", text2="a dog\nwith two lines", left=2, difference="a dog, not a cat", left_image="l.png",
    right_image="r.png", bar_px=20, created_at=5.0,
)  # fmt: skip


REMOVAL = RemovalSampleRow(
    id=0, job=1, created_at=6.0,
    sample=RemovalSample(
        Erasure(7, 2, 0, (10, 20, 30, 40), 100, 0.5, "s.png", "e.png", 3), "a dog", "left", "with.png", "without.png"
    ),
)  # fmt: skip
JOB = JobView(
    id=1, name="a.txt", state="active", profile="default", created_at=1.0, finished_at=None, captions=2, duplicates=0,
    problems=0, sampled=0, rejected=0, failed=0, cancelled=0, samples=0, error=None, duplicate_of=None,
)  # fmt: skip
STATUS = Status(
    version="1", pid=1, uptime_s=0.0, ready=True, paused=False, problems=(), bundle="mini", inbox="/inbox",
    open_tasks=0, steals=0, devices=(), jobs=(JOB,),
)  # fmt: skip


@dataclass
class World:
    """A store and a daemon with recorded samples in `rows`; it notes every question asked."""

    bell: Bell = field(default_factory=Bell)
    rows: list[SampleRow] = field(default_factory=list)
    removals: list[RemovalSampleRow] = field(default_factory=list)
    jobs: tuple[int, ...] = (2, 1)
    eta_s: float | None = None
    paused: bool = False
    looks_s: list[float] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    while_looking: Callable[[], None] = lambda: None
    broken: bool = False

    def record(self, count: int = 1, job: int = 1) -> None:
        first = len(self.rows) + 1
        self.rows += [replace(SAMPLE, id=number, job=job) for number in range(first, first + count)]
        self.bell.ring()

    def record_removal(self, count: int = 1, job: int = 1) -> None:
        first = len(self.removals) + 1
        self.removals += [replace(REMOVAL, id=number, job=job) for number in range(first, first + count)]
        self.bell.ring()

    def _job(self, number: int) -> JobView:
        removal = RemovalView(samples=sum(row.job == number for row in self.removals))
        samples = sum(row.job == number for row in self.rows)
        return JOB.model_copy(update={"id": number, "samples": samples, "removal": removal, "eta_s": self.eta_s})

    async def status(self, job: int | None) -> Status:
        self.looks_s.append(anyio.current_time())
        status = STATUS.model_copy(
            update={
                "paused": self.paused,
                "jobs": tuple(self._job(number) for number in self.jobs if job in (None, number)),
                "uptime_s": anyio.current_time(),
                "open": OpenJobs(eta_s=self.eta_s),
            }
        )
        if job is not None and not status.jobs:
            raise unknown_job(job)
        await anyio.lowlevel.checkpoint()
        self.while_looking()
        return status

    async def job(self, job: int) -> JobRow | None:
        return JobRow.__new__(JobRow) if job in self.jobs else None

    async def newest_sample(self) -> int:
        await anyio.lowlevel.checkpoint()
        return len(self.rows)

    async def samples(self, job: int | None, after: int, limit: int) -> list[SampleRow]:
        await anyio.lowlevel.checkpoint()
        if self.broken:
            raise StoreError("the database cannot be read")
        page = [row for row in self.rows if row.id > after and job in (None, row.job)][:limit]
        self.pages.append(len(page))
        return page

    async def newest_removal_sample(self) -> int:
        await anyio.lowlevel.checkpoint()
        return len(self.removals)

    async def removal_samples(self, job: int | None, after: int, limit: int) -> list[RemovalSampleRow]:
        await anyio.lowlevel.checkpoint()
        return [row for row in self.removals if row.id > after and job in (None, row.job)][:limit]

    def feed(self, places: int = 32) -> Feed:
        return Feed(self, self.status, self.bell, places=places)


def ids(events: list[Event], kind: str = "sample") -> list[int]:
    return [event.data["id"] for event in events if event.kind == kind]
