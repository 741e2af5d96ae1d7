"""What no route takes, and how every refusal reads."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from imgdiffd.api import app as api
from imgdiffd.api.events import routes
from imgdiffd.errors import ConfigurationError, InputError, StoreError
from tests.fakes.event_world import World
from tests.unit.api.test_app import FakeControl


class Failing(FakeControl):
    """A daemon in which orders fail in the way that is set."""

    failure: Exception = RuntimeError("no")

    async def set_paused(self, paused: bool) -> None:
        raise self.failure


@pytest.fixture
def control() -> Failing:
    return Failing()


@pytest.fixture
async def client(control: Failing) -> AsyncIterator[httpx.AsyncClient]:
    app = api.build_app(control, "1")
    app.include_router(routes(World().feed()))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://imgdiffd") as http:
        yield http


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/nope", 404, "there is no route '/nope' (GET /openapi.json"),
        ("GET", "/health/", 404, "there is no route '/health/'"),
        ("PUT", "/jobs", 405, "'/jobs' does not take PUT (send GET, HEAD, POST)"),
        ("GET", "/jobs/abc", 422, "path parameter number must be a whole number such as 7, not 'abc' (GET /openapi"),
        ("GET", "/jobs/1_0", 422, "path parameter number must be a whole number such as 7, not '1_0'"),
        ("GET", "/jobs?limit=1_0", 422, "query parameter limit must be a whole number such as 7, not '1_0'"),
        ("GET", "/jobs?limit=%20%D9%A1", 422, "query parameter limit must be a whole number"),
        ("GET", "/jobs?limit=", 422, "query parameter limit must be a whole number such as 7, not ''"),
        ("GET", "/jobs?state=lost", 422, "query parameter state must be 'all', 'open', 'ended'"),
        ("GET", "/jobs/0", 422, "path parameter number must be at least 1, not '0'"),
        ("GET", "/jobs/1/nope", 404, "there is no route '/jobs/1/nope'"),
        ("POST", "/jobs/1/nope", 404, "there is no route '/jobs/1/nope'"),
        ("GET", "/jobs/1/pause", 405, "'/jobs/1/pause' does not take GET (send POST)"),
        ("GET", "/jobs/pause", 405, "'/jobs/pause' does not take GET (send POST)"),
        ("DELETE", "/jobs/cancel", 405, "'/jobs/cancel' does not take DELETE (send POST)"),
        ("PUT", "/jobs/resume", 405, "'/jobs/resume' does not take PUT (send POST)"),
        ("POST", "/jobs?name=a&profile=", 422, "query parameter profile is empty"),
        ("POST", "/jobs?name=a&field=", 422, "query parameter field is empty"),
        ("POST", "/retry?reason=", 422, "query parameter reason is empty"),
        ("POST", "/jobs/retry", 405, "'/jobs/retry' does not take POST"),
        ("POST", "/jobs", 422, "query parameter name is missing"),
        ("POST", "/jobs?name=a&priority=1000", 422, "priority must be at most 100, not '1000'"),
        ("POST", "/retry?bogus=1", 422, "query parameter 'bogus' is unknown (this route takes job, reason)"),
        ("POST", "/pause?job=1", 422, "query parameter 'job' is unknown (this route takes none)"),
        ("POST", "/retry?job=1&job=2", 422, "query parameter job came twice (give it once)"),
        ("GET", "/events?since=x", 422, "'x' is not the id of an event (send the id of the last event"),
        ("GET", "/events?job=9", 404, "there is no job 9"),
        ("GET", "/items/9", 404, "there is no caption 9"),
    ],
)
async def test_a_refusal_is_one_sentence_and_a_code(
    client: httpx.AsyncClient, method: str, path: str, status: int, said: str
) -> None:
    answer = await client.request(method, path)
    refusal = answer.json()
    assert (answer.status_code, set(refusal)) == (status, {"detail", "code"})
    assert said in refusal["detail"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (InputError("job 1: it is done", code="wrong_job_state"), 409),
        (InputError("x", code="unknown_item"), 404),
        (InputError("x", code="bad_json"), 422),
        (ConfigurationError("x"), 422),
        (StoreError("x"), 503),
        (RuntimeError("secrets of the daemon"), 500),
    ],
)
async def test_a_failure_has_a_fitting_status(
    client: httpx.AsyncClient, control: Failing, failure: Exception, status: int
) -> None:
    control.failure = failure
    answer = await client.post("/pause")
    assert (answer.status_code, set(answer.json())) == (status, {"detail", "code"})
    assert "secrets" not in answer.text


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/health", "/ready", "/status", "/jobs", "/jobs/1", "/items/1", "/events", "/nope"])
async def test_head_is_answered_like_get(client: httpx.AsyncClient, path: str) -> None:
    head = await client.head(path)
    assert head.content == b""
    if path != "/events":
        get = await client.get(path)
        assert (head.status_code, head.headers) == (get.status_code, get.headers)
    assert head.status_code == (404 if path == "/nope" else 200)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sent",
    [
        {"files": {"file": b"a cat\n"}},
        {"data": {"file": "a cat"}},
        {"content": b"a cat\n", "headers": {"Content-Type": "image/png"}},
        {"content": b"a cat\n", "headers": {"Content-Encoding": "gzip"}},
    ],
    ids=["form", "urlencoded", "image", "encoded"],
)
async def test_a_form_or_another_type_is_415_with_a_way_on(
    client: httpx.AsyncClient, control: Failing, sent: dict[str, Any]
) -> None:
    answer = await client.post("/jobs", params={"name": "a.txt"}, **sent)
    assert (answer.status_code, answer.json()["code"]) == (415, "content_type")
    assert "is not read (send" in answer.json()["detail"]
    assert not control.calls


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["", "text/x-caption; charset=utf-8", "Application/JSON", "application/zstd"])
async def test_a_file_is_taken_whatever_kind_of_file_it_is(
    client: httpx.AsyncClient, control: Failing, kind: str
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = await client.post("/jobs", params={"name": "a.txt"}, content=b"a cat\n", headers=headers)
    assert (answer.status_code, len(control.calls)) == (200, 1)


@pytest.mark.anyio
async def test_every_route_has_the_schema_of_its_body_and_answers(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    for path, verbs in schema["paths"].items():
        for verb, route in verbs.items():
            for status, answer in route["responses"].items():
                shapes = [content["schema"] for content in answer["content"].values()]
                assert all(shapes), f"{verb} {path} {status} says nothing of its answer"
                assert status in {"200", "503"} or shapes == [{"$ref": "#/components/schemas/Refusal"}]
    assert set(schema["paths"]["/jobs"]["post"]["requestBody"]["content"]) > {"application/json", "text/csv"}
