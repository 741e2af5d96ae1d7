"""What is answered while the daemon is still starting: that it does, and what it waits for."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgdiffd.api.connections import serve
from imgdiffd.api.refusals import HeadLikeGet, refusal
from imgdiffd.status import Status

PATIENCE_S = 5.0  # a start that takes no longer is not worth an answer of its own: clients wait for the real one


def starting_app(look: Callable[[], Status]) -> ASGIApp:
    """Answers `/health`, `/ready` and `/status` from what `look` returns, everything else with 503."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status = look()
        match scope["method"], scope["path"]:
            case "GET", "/health":
                answer: Response = JSONResponse({"status": "ok"})
            case "GET", "/ready":
                answer = JSONResponse({"ready": False, "problems": list(status.problems)}, status_code=503)
            case "GET", "/status":
                answer = Response(status.model_dump_json(), media_type="application/json")
            case _:
                why = f"the daemon is starting: {'; '.join(status.problems)}"
                answer = refusal(503, f"{why} (`imgdiffd status` says when it has started)", "starting")
        answer.headers["connection"] = "close"  # the next request is for the app that takes this one's place
        await answer(scope, receive, send)

    return HeadLikeGet(app)


@asynccontextmanager
async def answering(
    listener: socket.socket, look: Callable[[], Status], waits: anyio.Event
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Answer on `listener` once `waits` is set or the start takes long; yields what ends that.

    Errors of the block are raised as they are.
    """
    scope, ended = anyio.CancelScope(), anyio.Event()

    async def answer() -> None:
        try:
            with scope:
                with anyio.move_on_after(PATIENCE_S):
                    await waits.wait()
                with listener.dup() as own:
                    await serve(starting_app(look), own)
        finally:
            ended.set()

    async def end() -> None:
        scope.cancel()
        await ended.wait()

    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(answer)
        try:
            yield end
        except Exception as error:  # a group would wrap it
            failure = error
        await end()
    if failure is not None:
        raise failure
