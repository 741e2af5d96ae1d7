"""Requests drawn from the API's own schema, right ones and wrong ones: every answer is one that the schema names."""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from tests.integration.daemon_process import LIMIT_S, RunningDaemon, daemon, drop

CALLS = int(os.environ.get("API_CALLS", "150"))
CHECKED = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("daemon")
    drop(folder, "captions.txt", [f"a cat and {n} dogs" for n in range(20)])
    with daemon(folder) as started:
        started.wait_done()
        yield started
        _, *traceback = started.log.read_text().partition("Traceback")
        assert not any(traceback), traceback[1][-5000:]


def answer(client: httpx.Client, request: requests.PreparedRequest) -> httpx.Response:
    """The daemon's answer; of a stream, which has no end, its head."""
    headers: Any = request.headers
    body: Any = request.body
    with client.stream(request.method or "", request.url or "", headers=dict(headers), content=body) as response:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.read()
            return response
        head = httpx.Response(response.status_code, headers=response.headers, request=response.request, content=b"")
        head.elapsed = timedelta()
        return head


def test_every_answer_is_one_that_the_schema_names(running: RunningDaemon) -> None:
    transport = httpx.HTTPTransport(uds=str(running.folder / "s"))
    with httpx.Client(transport=transport, base_url="http://imgdiffd", timeout=LIMIT_S) as client:
        schema: Any = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
        operations = [found.ok() for found in schema.get_all_operations()]
        modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
        cases = st.one_of([each.as_strategy(generation_mode=mode) for each in operations for mode in modes])
        checks: Any = [CHECKS.get_one(name) for name in CHECKED]

        @settings(max_examples=CALLS, suppress_health_check=list(HealthCheck), database=None)
        @given(case=cases)
        def ask(case: schemathesis.Case[Any]) -> None:
            asked = requests.Request(**case.as_transport_kwargs(base_url="http://imgdiffd")).prepare()
            case.validate_response(answer(client, asked), checks=checks)

        ask()
