"""Complete the OpenAPI document with what the framework cannot derive from the code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.http.auth import scopes_of
from app.http.examples import EXAMPLES, PROBLEMS, Example, problem
from app.http.problems import MEDIA_TYPE, ProblemDetail

TAGS = [
    {"name": "predict", "description": "Sentiment of texts, class of numeric rows."},
    {"name": "jobs", "description": "Collect records from a source, in the background."},
    {"name": "items", "description": "A small resource kept in Postgres."},
    {
        "name": "health",
        "description": "Liveness, readiness and metrics, for load balancers and monitoring.",
    },
]

DESCRIPTION = """
The Data Collection Service collects records from files, HTTP sources and databases,
classifies them and summarises them in a report.

**Keys.** On an installed site each request needs `X-API-Key`, except for the health endpoints and
these pages. A key has scopes, which are named like the groups below: `predict`, `jobs`, `items`. A
request without its scope is a 403 that names the scope.

**Limits.** Answers carry `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` (seconds);
too many requests get a 429 with `Retry-After`. The head of a request is limited in size and time
(431, 408), its body in size, depth and time (413, 400, 408). An answer begins in limited time (503,
504); a long one is interrupted only when it makes no progress.

**Errors** are `application/problem+json` (RFC 9457); `errors` names each wrong field. An unknown
path is a 404, a wrong method a 405 with `Allow`, an unknown name in a query a 422. A body is JSON
in UTF-8 and not compressed, else the answer is a 415. Each answer carries `X-Request-ID`; give it
to the operator when you report a problem.

**HEAD** is answered wherever GET is, with the same headers and no body.

**Pages.** Lists are sorted by a key that never changes and take `limit` and a cursor, the place
after which a page begins. Jobs: send `next_cursor` as `cursor`; it is null on the last page. Items:
send the last `id` as `after`; a page shorter than `limit` is the last.

**Versions.** `info.version` is the release (SemVer). Paths under `/api/v1` and those without a
version keep their meaning within a major release: fields and endpoints are only added, so clients
must ignore unknown fields. A breaking change gets a new prefix, beside the old one.
"""

_NAMES = {
    "400": ("Malformed", "The body is not JSON, is incomplete, or is nested too deeply"),
    "401": ("Unauthorised", "The key is missing or not valid"),
    "403": ("Forbidden", "The key lacks the scope that `scope` names"),
    "408": ("SlowUpload", "The head or the body did not arrive in time"),
    "413": ("TooLarge", "The body is too large"),
    "415": ("NotRead", "The body is not JSON in UTF-8, or it is encoded"),
    "422": ("Invalid", "A field or the query is wrong; `errors` names it"),
    "429": ("RateLimited", "Too many requests within a minute; see Retry-After"),
    "431": ("HeadTooLarge", "The request line and the headers are too large"),
    "503": ("Unavailable", "A dependency is not available; see Retry-After"),
    "504": ("Late", "The answer did not begin in time; the request may still take effect"),
}
_OF_BODIES = {"400", "408", "413", "415"}
_OF_EVERYBODY = ("422", "431")
_COUNT = {"schema": {"type": "integer", "minimum": 0}}
_HEADERS = {
    "RequestId": {
        "description": "Names this request in the logs; an id that the client sends is kept.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{8,64}$"},
    },
    "RateLimit-Limit": {"description": "Allowed requests per minute.", **_COUNT},
    "RateLimit-Remaining": {"description": "How many more requests are allowed at once.", **_COUNT},
    "RateLimit-Reset": {"description": "Seconds until an old request stops counting.", **_COUNT},
    "Retry-After": {"description": "Seconds to wait before the next try.", **_COUNT},
}
# Clients keep it but ask each time: another release has another document.
_CACHED = {"cache-control": "no-cache"}
_LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


#: Replaces the framework's endpoint, which takes 17 ms to encode the document per request.
router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    """Return the document, or 304 if the client has this version."""
    whole: Response = request.app.state.document
    known = request.headers.get("if-none-match", "")
    if whole.headers["etag"] not in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return whole
    return Response(status_code=304, headers={"etag": whole.headers["etag"], **_CACHED})


def encode(document: dict[str, Any]) -> Response:
    """Return the response with the document; it is the same for all clients."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Response(body, media_type="application/json", headers={"etag": etag, **_CACHED})


def operation_id(route: APIRoute) -> str:
    """Return an operation's id for generated clients, such as `jobs_trigger`."""
    return "_".join([*map(str, route.tags), route.name])


def install(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> None:
    """Add errors, examples, headers and scopes to the application's OpenAPI document.

    `bodies` are the models that endpoints parse themselves, so that FastAPI does not know them.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app, bodies)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _build(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    result = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=TAGS,
    )
    components = result.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for body in bodies:
        definition = body.model_json_schema(ref_template="#/components/schemas/{model}")
        definition.pop("$defs", None)
        schemas[body.__name__] = definition
    # These limits are settings of the site.
    settings = app.state.settings
    text = schemas["PredictRequest"]["properties"]["text"]["anyOf"][0]
    text["maxLength"] = settings.max_text_length
    schemas["BatchRequest"]["properties"]["items"]["maxItems"] = settings.predict_batch_max
    schemas.setdefault(
        "ProblemDetail",
        ProblemDetail.model_json_schema(ref_template="#/components/schemas/{model}"),
    )
    for name, definition in schemas["ProblemDetail"].pop("$defs", {}).items():
        schemas.setdefault(name, definition)
    components["securitySchemes"] = {
        "ApiKey": {
            "type": "apiKey",
            "in": "header",
            "name": "X-API-Key",
            "description": "Has some of the scopes predict, jobs and items.",
        }
    }
    components["headers"] = _HEADERS
    components["responses"] = {
        name: {
            "description": text,
            "headers": _headers(status, counted=True),
            "content": _problem(status),
        }
        for status, (name, text) in _NAMES.items()
    }
    scopes = scopes_of(result["paths"])
    for path, methods in result["paths"].items():
        for method, operation in methods.items():
            _complete(operation, scopes.get(path))
            _illustrate(operation, EXAMPLES.get((method, path), ()))
    return result


def _problem(status: str) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/ProblemDetail"}}
    if status in PROBLEMS:
        content["example"] = problem(status)
    return {MEDIA_TYPE: content}


def _headers(status: str, *, counted: bool) -> dict[str, Any]:
    if status == "431":
        return {}  # here the request has no id and was not counted
    headers = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    names = (*(_LIMITS if counted else ()), *(("Retry-After",) if status in ("429", "503") else ()))
    return headers | {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _complete(operation: dict[str, Any], scope: str | None) -> None:
    """Add errors, headers and the scope to an operation; without a scope it needs no key."""
    responses = operation["responses"]
    for status, answer in responses.items():
        content = answer.get("content", {})
        shape = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if shape.rpartition("/")[2] in ("ProblemDetail", "HTTPValidationError"):
            answer["content"] = _problem(status)
        answer["headers"] = answer.get("headers", {}) | _headers(status, counted=scope is not None)
    if scope is None:
        for status in _OF_EVERYBODY:
            answer = {"description": _NAMES[status][1], "headers": _headers(status, counted=False)}
            responses.setdefault(status, answer | {"content": _problem(status)})
        return
    operation["security"] = [{"ApiKey": [scope]}]
    for status, (name, _text) in _NAMES.items():
        if status not in _OF_BODIES or "requestBody" in operation:
            responses.setdefault(status, {"$ref": f"#/components/responses/{name}"})


def _illustrate(operation: dict[str, Any], examples: tuple[Example, ...]) -> None:
    for example in examples:
        if example.body is not None:
            content = operation["requestBody"]["content"]["application/json"]
            content.setdefault("examples", {})[example.name] = {"value": example.body}
        contents = operation["responses"][str(example.status)]["content"]
        is_text = isinstance(example.answer, str)
        kinds = [kind for kind in contents if (kind != "application/json") is is_text]
        for kind in kinds:
            # Of several text formats, use the one that the example is named after.
            if len(kinds) == 1 or example.name in kind:
                contents[kind].setdefault("examples", {})[example.name] = {"value": example.answer}
