"""The daemon's API over HTTP: health, readiness, status, jobs. What it shows and does comes through `Control`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import anyio
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from imgdiffd.api.refusals import (
    CONTENT_TYPES,
    install,
    refusals,
    refuse_content_type,
    refuse_unknown_parameters,
)
from imgdiffd.errors import InputError, unknown_job
from imgdiffd.job import JobChoice
from imgdiffd.status import Funnel, JobPage, JobView, ProblemPage, Status
from imgdiffd.store import ItemStory

JobVerb = Literal["pause", "resume", "cancel", "retry"]
BulkVerb = Literal["pause", "resume", "cancel"]


class Control(Protocol):
    """What the API may ask of the daemon. Unknown jobs and items are None; refused changes raise DaemonError."""

    async def status(self, job: int | None = None) -> Status: ...
    async def jobs(self, choice: JobChoice, limit: int, after: int | None) -> JobPage: ...
    async def job(self, job: int) -> JobView | None: ...
    async def funnel(self, job: int | None) -> Funnel: ...
    async def change_job(self, job: int, verb: JobVerb) -> JobView | None: ...
    async def change_jobs(self, verb: BulkVerb) -> int: ...
    async def problems(self, job: int, limit: int, after: int) -> ProblemPage | None: ...
    async def submit(
        self, name: str, body: AsyncIterator[bytes], profile: str | None, priority: int, field: str
    ) -> JobView: ...
    async def failures(self, job: int | None) -> dict[str, int]: ...
    async def retry(self, job: int | None, reason: str | None) -> int: ...
    async def set_paused(self, paused: bool) -> None: ...
    async def explain(self, item: int) -> dict[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class CaptionStory(ItemStory):
    """Everything known of one caption. `pictures_gone` are its images without a file, each with the reason."""

    pictures_gone: Mapping[str, str] = field(default_factory=dict)


class Readiness(BaseModel):
    """Whether work can be done, and what is wrong."""

    ready: bool
    problems: tuple[str, ...]


class Paused(BaseModel):
    """Whether dispatch as a whole is paused."""

    paused: bool


class Changed(BaseModel):
    """How many jobs were changed."""

    changed: int


class Retried(BaseModel):
    """How many captions and removals are tried again."""

    retried: int


UPLOADS = 64  # received or read at once; each holds a connection and a file
_AFTER = "the `next` of the page before, which is negative among the ended jobs"
_JobNumber = PathParameter(ge=1, le=2**63 - 1)
_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY = {"description": "the caption file", "required": True, "content": dict.fromkeys(CONTENT_TYPES, _FILE)}


def build_app(control: Control, version: str) -> FastAPI:
    """The application: every route, every error as a Refusal."""
    app = FastAPI(
        title="imgdiffd",
        version=version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(refuse_unknown_parameters)],
        responses=refusals(422, 503),
    )
    install(app)
    for routes in (_daemon_routes, _job_routes, _order_routes, _caption_routes):
        app.include_router(routes(control))
    return app


def _known_job(found: JobView | None, number: int) -> JobView:
    if found is None:
        raise unknown_job(number)
    return found


async def _written(status: Awaitable[Status]) -> bytes:
    # Written by pydantic: FastAPI would check and convert every record of a thousand jobs again.
    return (await status).model_dump_json().encode()


class _Shared:
    """One answer for all who ask at the same time, looked up after the last of them asked."""

    def __init__(self, look: Callable[[], Awaitable[Status]]) -> None:
        self._look = look
        self._begun = 0
        self._looking = anyio.Lock()
        self._last = b""

    async def written(self) -> bytes:
        """The status as JSON."""
        begun = self._begun
        async with self._looking:
            if self._begun == begun:
                self._begun += 1
                self._last = await _written(self._look())
            return self._last


def _daemon_routes(control: Control) -> APIRouter:
    """The daemon: whether it answers, whether it can work, its status, pausing it."""
    router = APIRouter()
    shared = _Shared(lambda: control.status(None))

    @router.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @router.get("/ready", response_model=Readiness, responses={503: {"model": Readiness, "description": "not ready"}})
    async def ready() -> Response:
        """Work can be done: a device is up, the inbox is readable, there is room on the disk."""
        status = await control.status()
        body = {"ready": status.ready, "problems": list(status.problems)}
        return JSONResponse(body, status_code=200 if status.ready else 503)

    @router.get("/status", response_model=Status, responses=refusals(404))
    async def status(
        job: int | None = Query(None, ge=1, le=2**63 - 1, description="of all jobs only this one"),
    ) -> Response:
        """The daemon, its devices, every open job and the newest few that have ended."""
        written = await shared.written() if job is None else await _written(control.status(job))
        return Response(written, media_type="application/json")

    @router.post("/pause")
    async def pause() -> Paused:
        """Send nothing more to the devices until resumed, across restarts too."""
        await control.set_paused(True)
        return Paused(paused=True)

    @router.post("/resume")
    async def resume() -> Paused:
        """Send work to the devices again."""
        await control.set_paused(False)
        return Paused(paused=False)

    return router


def _job_routes(control: Control) -> APIRouter:
    """Jobs: list and read them, submit one, change one."""
    router = APIRouter()

    @router.get("/jobs", response_model=JobPage)
    async def jobs(
        state: Annotated[JobChoice, Query(description="`open`, `ended`, or one state")] = "all",
        limit: int = Query(100, ge=1, le=1000),
        after: int | None = Query(None, ge=-(2**63) + 1, le=2**63 - 1, description=_AFTER),
    ) -> Response:
        """A page of jobs: the open ones, then those that have ended, newest first."""
        return Response((await control.jobs(state, limit, after)).model_dump_json(), media_type="application/json")

    taking = 0

    @router.post(
        "/jobs",
        responses=refusals(409, 415),
        dependencies=[Depends(refuse_content_type)],
        openapi_extra={"requestBody": _BODY},
    )
    async def submit(
        request: Request,
        name: str = Query(min_length=1, max_length=255, description="the file's name; its ending tells the format"),
        profile: str | None = Query(
            None, min_length=1, max_length=4096, description="a built-in one, or a file's path"
        ),
        priority: int = Query(0, ge=-100, le=100),
        field: str | None = Query(
            None, min_length=1, max_length=200, description="the key or column with the captions"
        ),
    ) -> JobView:
        """Take a caption file from the request's body, whatever of the listed types that is said to be."""
        nonlocal taking
        if taking >= UPLOADS:
            raise HTTPException(503, f"{UPLOADS} files are being received (send this one again later)")
        taking += 1
        try:
            return await control.submit(name, request.stream(), profile, priority, field or "")
        finally:
            taking -= 1

    @router.get("/jobs/{number}", responses=refusals(404))
    async def job(number: int = _JobNumber) -> JobView:
        """One job."""
        return _known_job(await control.job(number), number)

    @router.get("/jobs/{number}/funnel", responses=refusals(404))
    async def job_funnel(number: int = _JobNumber) -> Funnel:
        """How one job's captions narrowed to samples."""
        _known_job(await control.job(number), number)
        return await control.funnel(number)

    @router.get("/jobs/{number}/problems", responses=refusals(404))
    async def job_problems(
        number: int = _JobNumber,
        limit: int = Query(100, ge=1, le=1000),
        after: int = Query(0, ge=0, le=2**63 - 1, description="the `next` of the page before"),
    ) -> ProblemPage:
        """A page of the records of one job's file that have no usable caption, in the file's order."""
        if (page := await control.problems(number, limit, after)) is None:
            raise unknown_job(number)
        return page

    return router


_ORDERS: Mapping[JobVerb, str] = {
    "pause": "Start nothing more of a job until it is resumed.",
    "resume": "Go on with a paused job.",
    "cancel": "End a job; what is done stays.",
    "retry": "Try a job's failed captions and removals again.",
}
_ORDERS_TO_ALL: Mapping[BulkVerb, str] = {
    "pause": "Pause every active job.",
    "resume": "Resume every paused job.",
    "cancel": "Cancel every job that has not ended.",
}


def _order_routes(control: Control) -> APIRouter:
    """Orders about one job, or about every job that can take them: a route for each, so that others are unknown."""
    router = APIRouter()

    def order(verb: JobVerb, meaning: str) -> None:
        @router.post(f"/jobs/{{number}}/{verb}", description=meaning, name=f"{verb} job", responses=refusals(404, 409))
        async def change(number: int = _JobNumber) -> JobView:
            return _known_job(await control.change_job(number, verb), number)

    def order_to_all(verb: BulkVerb, meaning: str) -> None:
        @router.post(f"/jobs/{verb}", description=meaning, name=f"{verb} all")
        async def change_all() -> Changed:
            return Changed(changed=await control.change_jobs(verb))

    for verb, meaning in _ORDERS.items():
        order(verb, meaning)
    for bulk_verb, meaning in _ORDERS_TO_ALL.items():
        order_to_all(bulk_verb, meaning)
    return router


def _caption_routes(control: Control) -> APIRouter:
    """Captions of all jobs: the funnel, another try for those that failed, the story of one."""
    router = APIRouter()

    @router.get("/funnel")
    async def funnel() -> Funnel:
        """How all captions narrowed to samples."""
        return await control.funnel(None)

    @router.get("/failures", responses=refusals(404))
    async def failures(
        job: int | None = Query(None, ge=1, le=2**63 - 1, description="only captions of this job"),
    ) -> dict[str, int]:
        """How many captions and removals have failed and can be retried, by reason, the most frequent first."""
        return await control.failures(job)

    @router.post("/retry", responses=refusals(404, 409))
    async def retry(
        job: int | None = Query(None, ge=1, le=2**63 - 1, description="only captions of this job"),
        reason: str | None = Query(
            None, min_length=1, max_length=200, description="only captions that failed for this reason"
        ),
    ) -> Retried:
        """Try failed captions and removals again, of every job where none is named."""
        return Retried(retried=await control.retry(job, reason))

    @router.get("/items/{number}", responses={200: {"model": CaptionStory}, **refusals(404)})
    async def explain(number: int = _JobNumber) -> Any:
        """Everything known of one caption."""
        if (story := await control.explain(number)) is None:
            hint = "the samples and the log name captions by their numbers"
            raise InputError(f"there is no caption {number}", code="unknown_item", hint=hint)
        return story

    return router
