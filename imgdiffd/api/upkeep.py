"""The routes that delete jobs."""

from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter

from imgdiffd.api.refusals import refusals
from imgdiffd.status import DeletedJob

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
