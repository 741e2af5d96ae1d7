"""The routes for those who look at the data: lists of samples and items, and the images that the database names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from imgdiffd.api.refusals import refusals
from imgdiffd.errors import InputError
from imgdiffd.job import ItemState
from imgdiffd.method.score_names import bounds_of
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.store.found import Cursor, ItemPage, Order, SamplePage, Wanted, cursor_of

MOST = 1000  # samples or items on a page
TYPES: Mapping[str, str] = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_SAMPLE_PAGE, _ITEM_PAGE = TypeAdapter(SamplePage), TypeAdapter(ItemPage)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image as it lies on the disk; `tag` changes with its bytes."""

    data: bytes
    tag: str


class Looking(Protocol):
    """What these routes need of the daemon."""

    async def sample_page(self, wanted: Wanted, limit: int, after: Cursor, order: Order) -> SamplePage:
        """As `Store.sample_page`."""

    async def item_page(self, wanted: Wanted, limit: int, after: Cursor, order: Order) -> ItemPage:
        """As `Store.item_page`."""

    async def image(self, name: str) -> ImageFile:
        """The image that the database names so. Raises InputError where it names none so, or its file is gone."""


_Job = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="only of this job")]
_Kind = Annotated[Pipeline | None, Query(description="only of this kind")]
_Profile = Annotated[str | None, Query(min_length=1, max_length=200, description="the profile's name or number")]
_Noun = Annotated[
    str | None,
    Query(min_length=1, max_length=100, description="a noun that one caption of the pair has, not the other"),
]
_Min = Annotated[
    str | None,
    Query(
        alias="min",
        min_length=1,
        max_length=1000,
        description="lower bounds on scores, such as `clip_text_cosine=0.5,pair.clip_image_cosine=0.95`",
    ),
]
_Max = Annotated[str | None, Query(alias="max", min_length=1, max_length=1000, description="upper bounds on scores")]
_Limit = Annotated[int, Query(ge=1, le=MOST)]
_After = Annotated[str | None, Query(min_length=1, max_length=40, description="the `next` of the page before")]


def _bounds(parameter: str, text: str | None) -> dict[str, float]:
    try:
        return bounds_of(text.split(",")) if text else {}
    except InputError as error:
        raise InputError(f"query parameter {parameter}: {error.message}", code=error.code, hint=error.hint) from error


def routes(looking: Looking) -> APIRouter:
    """Samples, items and images."""
    router = APIRouter()

    @router.get("/samples", response_model=SamplePage, responses=refusals(404))
    async def samples(
        job: _Job = None,
        kind: _Kind = None,
        profile: _Profile = None,
        noun: _Noun = None,
        least: _Min = None,
        most: _Max = None,
        order: Order = "newest",
        limit: _Limit = 100,
        after: _After = None,
    ) -> Response:
        """A page of samples in the order in which they were recorded, or its reverse.

        A page costs what it reads: it ends after 20,000 samples were looked at, even if fewer fit than `limit`.
        """
        wanted = Wanted(job, kind, profile, noun, _bounds("min", least), _bounds("max", most))
        page = await looking.sample_page(wanted, limit, cursor_of(after) if after else Cursor(), order)
        return Response(_SAMPLE_PAGE.dump_json(page), media_type="application/json")

    @router.get("/items", response_model=ItemPage, responses=refusals(404))
    async def items(
        job: _Job = None,
        kind: _Kind = None,
        profile: _Profile = None,
        state: ItemState | None = None,
        stage: Annotated[Stage | None, Query(description="where they wait, or where they ended")] = None,
        reason: Annotated[
            str | None, Query(min_length=1, max_length=200, description="why they ended, such as `no_region`")
        ] = None,
        noun: _Noun = None,
        least: _Min = None,
        most: _Max = None,
        order: Order = "newest",
        limit: _Limit = 100,
        after: _After = None,
    ) -> Response:
        """A page of captions and of object removals, in the order of the captions or its reverse.

        Bounds on scores: the pair's must lie within them, and those of at least one of its regions or erased objects.
        A page costs what it reads: it ends after 20,000 items were looked at, even if fewer fit than `limit`.
        """
        bounds = _bounds("min", least), _bounds("max", most)
        wanted = Wanted(job, kind, profile, noun, *bounds, state, stage, reason)
        page = await looking.item_page(wanted, limit, cursor_of(after) if after else Cursor(), order)
        return Response(_ITEM_PAGE.dump_json(page), media_type="application/json")

    @router.get("/images/{folder}/{file}", response_class=Response, responses=_IMAGE)
    async def image(request: Request, folder: str, file: str) -> Response:
        """An image that a row of the database names, of a reject too. Its name never gets other content."""
        found = await looking.image(f"{folder}/{file}")
        tag = f'"{found.tag}"'
        headers = {
            "ETag": tag,
            "Cache-Control": "private, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
        }
        known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
        if known & {tag, "*"}:
            return Response(status_code=304, headers=headers)
        return Response(found.data, media_type=TYPES[PurePosixPath(file).suffix], headers=headers)

    return router


_BYTES = {"schema": {"type": "string", "format": "binary"}}
_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": dict.fromkeys(sorted(set(TYPES.values())), _BYTES), "description": "the image's bytes"},
    304: {"description": "it is the one that `If-None-Match` names"},
    **refusals(404),
}
