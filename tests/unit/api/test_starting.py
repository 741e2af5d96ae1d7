"""What is answered while the daemon is starting, and how the real answers take over."""

import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from imgdiffd.api.connections import serve
from imgdiffd.api.listening import bind
from imgdiffd.api.starting import answering, starting_app
from imgdiffd.cli.watching import is_over
from imgdiffd.errors import StoreError
from imgdiffd.status import Status, headline

STATUS = Status(
    version="1", pid=1, uptime_s=0.0, ready=False, paused=False, problems=("disk: full",), bundle="mini", inbox="in",
    open_tasks=0, steals=0, devices=(), jobs=(), starting=True,
)  # fmt: skip


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with bind(tmp_path / "s") as listener:
        yield listener


def client_of(listener: socket.socket) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=listener.getsockname(), verify=False, trust_env=False)
    return httpx.AsyncClient(transport=transport, base_url="http://imgdiffd", timeout=30)


def at_once() -> anyio.Event:
    waits = anyio.Event()
    waits.set()
    return waits


async def ask(listener: socket.socket) -> None:
    async with client_of(listener) as client:
        assert Status.model_validate((await client.get("/status")).json()) == STATUS
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["problems"]) == (503, ["disk: full"])
        for method, path in (
            ("GET", "/jobs"),
            ("POST", "/jobs?name=a.txt"),
            ("DELETE", "/jobs/1"),
            ("PUT", "/nothing"),
        ):
            refused = await client.request(method, path, content=b"x" if method == "POST" else None)
            assert (refused.status_code, refused.json()["code"]) == (503, "starting"), path
            assert "disk: full" in refused.json()["detail"]


@pytest.mark.parametrize("backend_options", [{"use_uvloop": True}, {"use_uvloop": False}])
def test_a_start_that_waits_answers_then_lets_the_daemon(
    listener: socket.socket, backend_options: dict[str, bool]
) -> None:
    async def main() -> None:
        async with answering(listener, lambda: STATUS, at_once()) as end:
            await ask(listener)
            await end()
            later = STATUS.model_copy(update={"starting": False})
            async with anyio.create_task_group() as group:
                group.start_soon(serve, starting_app(lambda: later), listener)
                for _ in range(5):
                    async with client_of(listener) as client:
                        assert Status.model_validate((await client.get("/status")).json()) == later
                group.cancel_scope.cancel()

    anyio.run(main, backend_options=backend_options)


def test_a_quick_start_answers_nothing_of_its_own(listener: socket.socket) -> None:
    async def main() -> None:
        async with (
            answering(listener, lambda: STATUS, anyio.Event()) as end,
            client_of(listener) as client,
            anyio.create_task_group() as group,
        ):
            group.start_soon(client.get, "/status")
            await anyio.wait_all_tasks_blocked()
            await end()
            group.cancel_scope.cancel()

    anyio.run(main)


def test_an_error_of_the_start_is_raised_as_it_is(listener: socket.socket) -> None:
    async def main() -> None:
        async with answering(listener, lambda: STATUS, at_once()):
            raise StoreError("locked")

    with pytest.raises(StoreError, match="locked"):
        anyio.run(main)


def test_a_start_says_what_it_waits_for_and_ends_no_watch() -> None:
    assert headline(STATUS) == "starting; disk: full"
    assert not is_over(STATUS, None)
    assert not is_over(STATUS, 1)
    assert is_over(STATUS.model_copy(update={"starting": False}), None)
