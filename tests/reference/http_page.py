"""`docs/reference/http.md`, written from the API's own schema by `make reference`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic.json_schema import models_json_schema

from imgdiffd.api import looking, upkeep
from imgdiffd.api.app import build_app
from imgdiffd.api.events import routes
from imgdiffd.api.progress import ProgressEvent
from imgdiffd.api.sample_events import RemovalSampleEvent, SampleEvent

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
COMMAND = "make reference"
_HEAD = f"""\
<!-- Generated from the API's OpenAPI schema by `{COMMAND}`; not edited by hand. -->
# HTTP reference

Every route of the daemon's Unix socket and every record that it sends. [The guide to the API](../http-and-python.md)
shows how to connect. The running daemon serves the same as a schema at `/openapi.json`. Every refusal is JSON of the
form `{{"detail": "a sentence", "code": "for_programs"}}`. Where GET is answered, HEAD is too.
"""
_Schema = Mapping[str, Any]


def schema() -> dict[str, Any]:
    """The OpenAPI schema of the API, `/events` and its records included. No request is answered."""
    app = build_app(cast(Any, None), "0")
    app.include_router(routes(cast(Any, None)))
    app.include_router(looking.routes(cast(Any, None)))
    app.include_router(upkeep.routes(cast(Any, None)))
    app.include_router(upkeep.previews_route(cast(Any, None)))
    app.include_router(upkeep.metrics_route(cast(Any, None)))
    found = app.openapi()
    _, events = models_json_schema(
        [(each, "serialization") for each in (SampleEvent, RemovalSampleEvent, ProgressEvent)],
        ref_template="#/components/schemas/{model}",
    )
    return {**found, "records": {**found["components"]["schemas"], **events["$defs"]}}


def kind(value: _Schema) -> str:
    """A type as people write it: `list of JobView`, `integer or null`."""
    if "$ref" in value:
        return f"[{(name := value['$ref'].rpartition('/')[2])}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(kind(each) for each in value["anyOf"])
    if "enum" in value:
        return " or ".join(f"`{each}`" for each in value["enum"])
    if value.get("type") == "array":
        inner = value.get("prefixItems", [value["items"]] if "items" in value else [])
        return f"list of {kind(inner[0])}" if inner else "list"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), Mapping):
        return f"object of {kind(value['additionalProperties'])}"
    return str(value.get("type", "any JSON"))


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _answers(responses: _Schema) -> str:
    shown = []
    for status, answer in responses.items():
        bodies = [f"{kind(body['schema'])} as `{media}`" for media, body in answer.get("content", {}).items()]
        known = " and ".join(bodies) if status == "200" else _cell(answer["description"])
        shown.append(f"{status}: {known}")
    return "; ".join(shown)


def _route(path: str, verb: str, route: _Schema) -> Iterator[str]:
    yield f"\n### {verb.upper()} {path}\n\n{_cell(route['description'])}\n\nAnswers: {_answers(route['responses'])}.\n"
    if parameters := route.get("parameters"):
        yield "\n| Parameter | In | Type | Meaning |\n| --- | --- | --- | --- |\n"
    for each in parameters or ():
        needed = " (required)" if each.get("required") and each["in"] != "path" else ""
        meaning = _cell(each.get("description", ""))
        yield f"| `{each['name']}`{needed} | {each['in']} | {kind(each['schema'])} | {meaning} |\n"
    if body := route.get("requestBody"):
        types = ", ".join(f"`{each}`" for each in body["content"])
        yield f"\nBody: {_cell(body.get('description', ''))}, as one of {types}, or without a type.\n"


def _record(name: str, record: _Schema) -> Iterator[str]:
    yield f"\n### {name}\n\n"
    if "description" in record:
        yield f"{_cell(record['description'])}\n\n"
    if "enum" in record:
        yield f"One of {', '.join(f'`{each}`' for each in record['enum'])}.\n"
        return
    yield "| Field | Type |\n| --- | --- |\n"
    for field, value in record["properties"].items():
        yield f"| `{field}` | {kind(value)} |\n"


def page() -> str:
    """The whole page: the routes in the order of the code, then the records by name."""
    found = schema()
    parts = [_HEAD, "\n## Routes\n"]
    for path, routes_of_path in found["paths"].items():
        for verb, route in routes_of_path.items():
            parts += _route(path, verb, route)
    parts.append("\n## Records\n")
    for name, record in sorted(found["records"].items()):
        parts += _record(name, record)
    return "".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), "utf-8")
