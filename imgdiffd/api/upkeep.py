"""The routes for those who look after the daemon: deleting jobs, what early abort has learnt, and metrics."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from imgdiffd.api.refusals import refusals
from imgdiffd.status import DeletedJob
from imgdiffd.store import PreviewsRow

_DryRun = Query(False, description="only say what would be deleted")


class Upkeep(Protocol):
    """What these routes need of the daemon."""

    async def delete(self, jobs: Sequence[int], *, dry_run: bool) -> tuple[DeletedJob, ...]:
        """Delete these jobs, all or none. Raises InputError if one has not ended."""

    async def prune(self, older_than_s: float, *, dry_run: bool) -> tuple[DeletedJob, ...]:
        """Delete every job that ended longer ago than that and of which nothing waits."""


def routes(upkeep: Upkeep) -> APIRouter:
    """Deleting one job, and all that ended long ago."""
    router = APIRouter()

    @router.delete("/jobs/{number}", responses=refusals(404, 409))
    async def delete(number: int = PathParameter(ge=1, le=2**63 - 1), dry_run: bool = _DryRun) -> DeletedJob:
        """Delete an ended job with its captions, samples and images; answers once its rows are gone."""
        (deleted,) = await upkeep.delete([number], dry_run=dry_run)
        return deleted

    @router.post("/prune")
    async def prune(
        older_than_s: float = Query(ge=0, le=1e10, description="seconds since a job ended"), dry_run: bool = _DryRun
    ) -> tuple[DeletedJob, ...]:
        """Delete every job that ended longer ago and of which nothing waits; answers once their rows are gone."""
        return await upkeep.prune(older_than_s, dry_run=dry_run)

    return router


def previews_route(look: Callable[[], Awaitable[Sequence[PreviewsRow]]]) -> APIRouter:
    """What `look` finds out about previews."""
    router = APIRouter()

    @router.get("/previews")
    async def previews() -> Sequence[PreviewsRow]:
        """What previews of half-painted pairs show, for each profile, bundle and step: early abort's thresholds."""
        return await look()

    return router


def metrics_route(text: Callable[[], Awaitable[bytes]]) -> APIRouter:
    """The metrics that `text` makes."""
    router = APIRouter()

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Everything that can be counted or measured, for Prometheus."""
        return Response(await text(), media_type=CONTENT_TYPE_LATEST)

    return router
