"""How requests are refused: what no route takes, and every error as one sentence with a code."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgdiffd.errors import ConfigurationError, ImgdiffdError, InputError, StoreError, wrong_value

SCHEMA = "GET /openapi.json describes every route"
UPLOAD = "curl -T captions.json -X POST '…/jobs?name=captions.json'"
# What a caption file may be sent as. Its name tells the format, so that one of these is as good as another.
CONTENT_TYPES = (
    "application/octet-stream",
    "text/plain",
    "text/csv",
    "text/tab-separated-values",
    "application/json",
    "application/x-ndjson",
    "application/jsonl",
    "application/vnd.apache.parquet",
    "application/x-parquet",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
)
_STATUS_OF_CODE = {
    "unknown_job": 404,
    "unknown_item": 404,
    "unknown_sample": 404,
    "no_such_profile": 404,
    "unknown_image": 404,
    "image_gone": 404,
    "wrong_job_state": 409,
    "needs_painting": 409,
    "content_type": 415,
}
_CODE_OF_STATUS = {404: "unknown_route", 405: "method_not_allowed", 503: "busy"}
_WHOLE = re.compile("-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?")
_SHOWN = 100  # characters of what a client sent


class Refusal(BaseModel):
    """Why a request was refused: a sentence for people, and a code that programs can rely on."""

    detail: str
    code: str


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses, for its schema."""
    meanings = {
        404: "nothing has that number",
        405: "the route does not take that method",
        409: "its state does not allow that",
        415: "the body's type is not that of a caption file",
        422: "a parameter or the body cannot be used",
        503: "too much at once, or the database or its disk does not take it at the moment",
    }
    return {status: {"model": Refusal, "description": meanings[status]} for status in statuses}


def refusal(status: int, detail: str, code: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a refused request."""
    return JSONResponse({"detail": detail, "code": code}, status, headers)


def install(app: FastAPI) -> None:
    """Give the application these refusals, and an answer to HEAD wherever it answers GET."""
    app.add_middleware(HeadLikeGet)
    app.add_exception_handler(ImgdiffdError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_parameter)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_left)
    app.add_exception_handler(Exception, _on_failure)


async def _on_our_error(_request: Request, error: Exception) -> Response:
    match error:
        case InputError():
            return refusal(_STATUS_OF_CODE.get(error.code, 422), str(error), error.code)
        case ConfigurationError():
            return refusal(422, str(error), "configuration")
        case StoreError():
            return refusal(503, str(error), "database")
    return refusal(409, str(error), "refused")


async def _on_parameter(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return refusal(422, f"{'; '.join(map(_sentence, error.errors()))} ({SCHEMA})", "bad_parameter")


def _sentence(error: Mapping[str, Any]) -> str:
    """What is wrong with one parameter: `query parameter priority must be at most 100, not '1000'`."""
    place, *name = error["loc"]
    said = "is missing" if error["type"] == "missing" else wrong_value(error)
    return f"{place} parameter {'.'.join(map(str, name))} {said}"


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODE_OF_STATUS.get(error.status_code, "refused")
    path = repr(request.url.path[:_SHOWN])
    if error.status_code == 404 and error.detail == "Not Found":
        return refusal(404, f"there is no route {path} ({SCHEMA})", code)
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods_of(request)))
        detail = f"{path} does not take {request.method[:_SHOWN]} (send {allowed})"
        return refusal(405, detail, code, {"Allow": allowed})
    return refusal(error.status_code, str(error.detail), code, error.headers)


def _methods_of(request: Request) -> Iterable[str]:
    """The methods that any route of this path takes."""
    path, routes = request.url.path, request.app.openapi()["paths"]
    methods = {"GET"} if path == "/openapi.json" else set()
    for template, verbs in {path: routes[path]}.items() if path in routes else routes.items():
        if compile_path(template)[0].match(path):
            methods |= {verb.upper() for verb in verbs}
    return methods | ({"HEAD"} if "GET" in methods else set())


async def _on_left(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # to nobody: the client went before its body had ended


async def _on_failure(_request: Request, error: Exception) -> Response:
    return refusal(500, f"the daemon failed at this request: {type(error).__name__} (its log says more)", "internal")


async def refuse_unknown_parameters(request: Request) -> None:
    """Refuse a parameter that the route does not have, one that comes twice, and a number that only Python would take.

    Raises InputError; and HTTPException with 405 where the path is another route's, letter by letter: `GET /jobs/pause`
    does not ask for a job of that number.
    """
    route = request.scope["route"]
    if request.url.path != route.path and request.url.path in request.app.openapi()["paths"]:
        raise HTTPException(405)
    takes_in = route.dependant
    known = {field.alias for field in takes_in.query_params}
    takes = f"this route takes {', '.join(sorted(known))}" if known else "this route takes none"
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            raise InputError(f"query parameter {name[:_SHOWN]!r} is unknown", code="bad_parameter", hint=takes)
        if given.count(name) > 1:
            raise InputError(f"query parameter {name} came twice", code="bad_parameter", hint="give it once")
    for place, fields, values in (
        ("path", takes_in.path_params, request.path_params),
        ("query", takes_in.query_params, request.query_params),
    ):
        for field in fields:
            _refuse_odd_number(f"{place} parameter {field.alias}", field.field_info.annotation, values.get(field.alias))


def _refuse_odd_number(what: str, kind: Any, value: str | None) -> None:
    """Refuse, in place of a number, what Python reads as one: `1_0`, ` 1`, digits that are not ASCII."""
    kinds = {kind, *get_args(kind)}
    if value is None or not kinds & {int, float}:
        return
    if not (_NUMBER if float in kinds else _WHOLE).fullmatch(value):
        must = "number such as 1.5" if float in kinds else "whole number such as 7"
        raise InputError(f"{what} must be a {must}, not {value[:_SHOWN]!r}", code="bad_parameter", hint=SCHEMA)


async def refuse_content_type(request: Request) -> None:
    """Refuse a body that is wrapped in something else than a caption file, such as a form. Raises InputError."""
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if given and not kind.startswith("text/") and kind not in CONTENT_TYPES:
        hint = f"send the file itself, as `{UPLOAD}` does"
        raise InputError(f"a body of type {given[:_SHOWN]!r} is not read", code="content_type", hint=hint)
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        hint = "send a compressed file as it is, and end its name in .gz or .zst"
        raise InputError(
            f"a body with content encoding {coding[:_SHOWN]!r} is not read", code="content_type", hint=hint
        )


class HeadLikeGet:
    """Answers HEAD as GET would be answered, without the body: a stream of events ends at once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        with anyio.CancelScope() as whole:

            async def send_head(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body"})
                    whole.cancel()

            await self._app({**scope, "method": "GET"}, receive, send_head)
