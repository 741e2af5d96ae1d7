"""The daemon's API over HTTP: health, readiness, status, jobs. What it shows and does comes through `Control`."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import uvicorn
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from pydantic import TypeAdapter

from imgdiffd.errors import ConfigurationError, ImgdiffdError, InputError
from imgdiffd.status import Funnel, JobView, Status

_JOBS = TypeAdapter(tuple[JobView, ...])
JobVerb = Literal["pause", "resume", "cancel", "retry"]


class Control(Protocol):
    """What the API may ask of the daemon. Unknown jobs and items are None; refused changes raise DaemonError."""

    async def status(self) -> Status: ...
    async def jobs(self) -> tuple[JobView, ...]: ...
    async def job(self, job: int) -> JobView | None: ...
    async def funnel(self, job: int | None) -> Funnel: ...
    async def change_job(self, job: int, verb: JobVerb) -> JobView | None: ...
    async def submit(self, name: str, body: AsyncIterator[bytes], profile: str | None, priority: int) -> JobView: ...
    async def failures(self, job: int | None) -> dict[str, int]: ...
    async def retry(self, job: int | None, reason: str | None) -> int: ...
    async def set_paused(self, paused: bool) -> None: ...
    async def explain(self, item: int) -> dict[str, Any] | None: ...


def _refusal(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status)


_JobNumber = PathParameter(ge=1, le=2**63 - 1)


def build_app(control: Control, version: str) -> FastAPI:
    """The application: every route, every error as `{"detail": sentence}`."""
    app = FastAPI(title="imgdiffd", version=version, docs_url=None, redoc_url=None)

    @app.exception_handler(ImgdiffdError)
    async def refuse(_request: Request, error: Exception) -> JSONResponse:
        status = 422 if isinstance(error, InputError | ConfigurationError) else 409
        return _refusal(status, str(error))

    for routes in (_daemon_routes, _job_routes, _caption_routes):
        app.include_router(routes(control))
    return app


def _daemon_routes(control: Control) -> APIRouter:
    """The daemon: whether it answers, whether it can work, its status, pausing it."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/ready", responses={503: {"description": "something needed is not working"}})
    async def ready() -> JSONResponse:
        """Work can be done: a device is up, the inbox is readable, there is room on the disk."""
        status = await control.status()
        body = {"ready": status.ready, "problems": list(status.problems)}
        return JSONResponse(body, status_code=200 if status.ready else 503)

    @router.get("/status", response_model=Status)
    async def status() -> Response:
        """The daemon, its devices and its jobs."""
        # Written by pydantic: FastAPI would check and convert every record of a thousand jobs again.
        return Response((await control.status()).model_dump_json(), media_type="application/json")

    @router.post("/pause")
    async def pause() -> dict[str, bool]:
        """Send nothing more to the devices until resumed, across restarts too."""
        await control.set_paused(True)
        return {"paused": True}

    @router.post("/resume")
    async def resume() -> dict[str, bool]:
        """Send work to the devices again."""
        await control.set_paused(False)
        return {"paused": False}

    return router


def _job_routes(control: Control) -> APIRouter:
    """Jobs: list and read them, submit one, change one."""
    router = APIRouter()

    @router.get("/jobs", response_model=tuple[JobView, ...])
    async def jobs() -> Response:
        """Every job, newest first."""
        return Response(_JOBS.dump_json(await control.jobs()), media_type="application/json")

    @router.post("/jobs", responses={409: {}, 422: {}})
    async def submit(
        request: Request,
        name: str = Query(min_length=1, max_length=255, description="the file's name; its ending tells the format"),
        profile: str | None = Query(None, max_length=4096, description="a built-in one, or a file's path"),
        priority: int = Query(0, ge=-100, le=100),
    ) -> JobView:
        """Take a caption file from the request's body."""
        return await control.submit(name, request.stream(), profile, priority)

    @router.get("/jobs/{number}", responses={404: {}})
    async def job(number: int = _JobNumber) -> Any:
        """One job."""
        return await control.job(number) or _refusal(404, f"there is no job {number}")

    @router.get("/jobs/{number}/funnel", responses={404: {}})
    async def job_funnel(number: int = _JobNumber) -> Any:
        """How one job's captions narrowed to samples."""
        if await control.job(number) is None:
            return _refusal(404, f"there is no job {number}")
        return await control.funnel(number)

    @router.post("/jobs/{number}/{verb}", responses={404: {}, 409: {}})
    async def change(verb: JobVerb, number: int = _JobNumber) -> Any:
        """Pause, resume or cancel a job, or retry its failed items."""
        return await control.change_job(number, verb) or _refusal(404, f"there is no job {number}")

    return router


def _caption_routes(control: Control) -> APIRouter:
    """Captions of all jobs: the funnel, another try for those that failed, the story of one."""
    router = APIRouter()

    @router.get("/funnel")
    async def funnel() -> Funnel:
        """How all captions narrowed to samples."""
        return await control.funnel(None)

    @router.get("/failures")
    async def failures(
        job: int | None = Query(None, ge=1, le=2**63 - 1, description="only captions of this job"),
    ) -> dict[str, int]:
        """How many captions and removals have failed and can be retried, by reason, the most frequent first."""
        return await control.failures(job)

    @router.post("/retry", responses={422: {}})
    async def retry(
        job: int | None = Query(None, ge=1, le=2**63 - 1, description="only captions of this job"),
        reason: str | None = Query(None, max_length=200, description="only captions that failed for this reason"),
    ) -> dict[str, int]:
        """Try failed captions and removals again, of every job where none is named."""
        return {"retried": await control.retry(job, reason)}

    @router.get("/items/{number}", responses={404: {}})
    async def explain(number: int = _JobNumber) -> Any:
        """Everything known of one caption."""
        return await control.explain(number) or _refusal(404, f"there is no caption {number}")

    return router


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: the daemon stops it in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer on `listener` until cancelled."""
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2
    )
    await _Server(config).serve(sockets=[listener])
