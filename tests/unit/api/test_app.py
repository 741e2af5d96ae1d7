"""The HTTP routes."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from imgdiffd.api import app as api
from imgdiffd.errors import DaemonError, InputError, unknown_job
from imgdiffd.job import JobChoice
from imgdiffd.status import Funnel, JobPage, JobView, ProblemPage, ProblemView, Status

JOB = JobView(
    id=1, name="a.txt", state="active", profile="default", created_at=1.0, finished_at=None, captions=2, duplicates=0,
    problems=0, sampled=0, rejected=0, failed=0, cancelled=0, samples=0, error=None, duplicate_of=None,
)  # fmt: skip
PROBLEMS = ProblemPage(
    problems=(ProblemView(line=3, reason="empty", message="the caption has no text"),), total=5, next=1
)


class FakeControl:
    """One job; every call noted."""

    def __init__(self) -> None:
        self.wrong: tuple[str, ...] = ()
        self.calls: list[tuple[object, ...]] = []

    async def status(self, job: int | None = None) -> Status:
        if job not in (None, JOB.id):
            raise unknown_job(job)
        return Status(
            version="1", pid=1, uptime_s=0.0, ready=not self.wrong, paused=False, problems=self.wrong,
            bundle="mini", inbox="/inbox", open_tasks=0, steals=0, devices=(), jobs=(JOB,),
        )  # fmt: skip

    async def jobs(self, choice: JobChoice, limit: int, after: int | None) -> JobPage:
        self.calls.append((choice, limit, after))
        return JobPage(jobs=(JOB,), total=7, next=-3)

    async def job(self, job: int) -> JobView | None:
        return JOB if job == JOB.id else None

    async def funnel(self, job: int | None) -> Funnel:
        return Funnel(steps=())

    async def change_job(self, job: int, verb: api.JobVerb) -> JobView | None:
        self.calls.append((verb, job))
        if verb == "resume":
            raise DaemonError("job 1 is active, not paused")
        return JOB if job == JOB.id else None

    async def change_jobs(self, verb: api.BulkVerb) -> int:
        self.calls.append((verb, "all"))
        return 3

    async def problems(self, job: int, limit: int, after: int) -> ProblemPage | None:
        return PROBLEMS if job == JOB.id else None

    async def submit(
        self, name: str, body: AsyncIterator[bytes], profile: str | None, priority: int, field: str
    ) -> JobView:
        content = b"".join([chunk async for chunk in body])
        if not content:
            raise InputError(f"{name}: empty", code="empty_file")
        self.calls.append((name, content, profile, priority, field))
        return JOB

    async def failures(self, job: int | None) -> dict[str, int]:
        return {"broke_generate": 3}

    async def retry(self, job: int | None, reason: str | None) -> int:
        self.calls.append(("retry", job, reason))
        return 3

    async def set_paused(self, paused: bool) -> None:
        self.calls.append(("paused", paused))

    async def explain(self, item: int) -> dict[str, Any] | None:
        return {"item": item} if item == 1 else None


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def client(control: FakeControl) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(api.build_app(control, "1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://imgdiffd") as http:
        yield http


@pytest.mark.anyio
async def test_health_is_ok_while_ready_says_what_is_wrong(client: httpx.AsyncClient, control: FakeControl) -> None:
    assert (await client.get("/ready")).status_code == 200
    control.wrong = ("no device is ready",)
    assert (await client.get("/health")).status_code == 200
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["no device is ready"])


@pytest.mark.anyio
async def test_a_submitted_file_arrives_whole_with_its_options(client: httpx.AsyncClient, control: FakeControl) -> None:
    answer = await client.post("/jobs", params={"name": "a.txt", "priority": 3, "field": "text"}, content=b"a cat\n")
    assert answer.status_code == 200
    assert control.calls == [("a.txt", b"a cat\n", None, 3, "text")]


@pytest.mark.anyio
async def test_every_refusal_is_a_sentence_with_a_fitting_status(client: httpx.AsyncClient) -> None:
    cases = {
        ("GET", "/jobs/9"): 404,
        ("GET", "/status?job=9"): 404,
        ("GET", "/jobs?state=lost"): 422,
        ("GET", "/jobs?limit=0"): 422,
        ("GET", "/jobs/9/funnel"): 404,
        ("GET", "/jobs/9/problems"): 404,
        ("GET", "/items/9"): 404,
        ("POST", "/jobs/9/pause"): 404,
        ("POST", "/jobs/1/resume"): 409,
        ("POST", "/jobs?name=a.txt"): 422,
        ("POST", "/jobs/1/explode"): 404,
        ("GET", "/jobs/0"): 422,
    }
    for (method, path), status in cases.items():
        answer = await client.request(method, path)
        assert (path, answer.status_code) == (path, status)
        assert answer.json()["detail"]


@pytest.mark.anyio
async def test_a_page_of_jobs_is_asked_for_as_it_was_named(client: httpx.AsyncClient, control: FakeControl) -> None:
    page = JobPage.model_validate((await client.get("/jobs", params={"state": "failed", "after": -12})).json())
    assert (page.total, page.next, page.jobs) == (7, -3, (JOB,))
    assert (await client.get("/jobs", params={"state": "open", "limit": 5})).status_code == 200
    assert control.calls == [("failed", 100, -12), ("open", 5, None)]


@pytest.mark.anyio
async def test_an_unknown_job_is_the_same_sentence_everywhere(client: httpx.AsyncClient) -> None:
    paths = ("/status?job=9", "/jobs/9", "/jobs/9/funnel")
    answers = {(await client.get(path)).json()["detail"] for path in paths}
    answers.add((await client.post("/jobs/9/cancel")).json()["detail"])
    assert answers == {"there is no job 9 (`imgdiffd jobs` lists them)"}


@pytest.mark.anyio
async def test_retry_without_a_job_covers_every_job(client: httpx.AsyncClient, control: FakeControl) -> None:
    everywhere = await client.post("/retry", params={"reason": "worker_died"})
    assert everywhere.json() == {"retried": 3}
    assert (await client.post("/retry", params={"job": 1})).status_code == 200
    assert control.calls == [("retry", None, "worker_died"), ("retry", 1, None)]
    assert (await client.post("/retry", params={"job": 0})).status_code == 422


@pytest.mark.anyio
async def test_the_problems_of_a_job_come_in_pages(client: httpx.AsyncClient) -> None:
    answer = await client.get("/jobs/1/problems", params={"limit": 1})
    record = {"line": 3, "reason": "empty", "message": "the caption has no text"}
    assert answer.json() == {"problems": [record], "total": 5, "next": 1}
    assert (await client.get("/jobs/1/problems", params={"limit": 1001})).status_code == 422
