"""The route that brings finished captions under another profile."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Query

from imgdiffd.api.refusals import refusals
from imgdiffd.status import Refiltered

Refilter = Callable[[str, int | None, bool], Awaitable[Refiltered]]  # a profile's name, a job, whether to paint


def routes(bring: Refilter) -> APIRouter:
    """What `bring` does with the captions that ended."""
    router = APIRouter()

    @router.post("/refilter", responses=refusals(404, 409))
    async def refilter(
        profile: str = Query(min_length=1, max_length=4096, description="a built-in one, or a file's path"),
        job: int | None = Query(None, ge=1, le=2**63 - 1, description="only captions of this job"),
        paint: bool = Query(False, description="also where pairs must be painted, which takes long"),
    ) -> Refiltered:
        """Bring captions that ended under other profiles under this one; only work whose results are missing waits."""
        return await bring(profile, job, paint)

    return router
