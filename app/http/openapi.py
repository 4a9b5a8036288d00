"""The OpenAPI document: what the code cannot say by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.http.auth import PUBLIC
from app.http.problems import MEDIA_TYPE, ProblemDetail
from app.predict.router import BODIES

TAGS = [
    {"name": "jobs", "description": "Collect records from a source, in the background."},
    {"name": "predict", "description": "Sentiment of texts, class of numeric rows."},
    {"name": "items", "description": "A small resource kept in Postgres."},
    {"name": "health", "description": "For balancers, monitors and people in a hurry."},
]

DESCRIPTION = """
The Data Collection Service collects records from files and HTTP sources, classifies them
and sums them up.

* Errors are `application/problem+json`; `errors` names each wrong field.
* Each answer carries `X-Request-ID`; tell it to the operator when something goes wrong.
* On an installed site each request needs `X-API-Key`, but for the health endpoints and these pages.
"""

_SHARED = {
    "401": ("A key is missing or not good", "Unauthorised"),
    "413": ("The body is too large", "TooLarge"),
    "503": ("Something that the answer needs is not available; see Retry-After", "Unavailable"),
}


def install(app: FastAPI) -> None:
    """Give the application's OpenAPI document error shapes and the security scheme."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _build(app: FastAPI) -> dict[str, Any]:
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
    for body in BODIES:
        definition = body.model_json_schema(ref_template="#/components/schemas/{model}")
        definition.pop("$defs", None)
        schemas[body.__name__] = definition
    schemas.setdefault(
        "ProblemDetail",
        ProblemDetail.model_json_schema(ref_template="#/components/schemas/{model}"),
    )
    for name, definition in schemas["ProblemDetail"].pop("$defs", {}).items():
        schemas.setdefault(name, definition)
    components["securitySchemes"] = {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    }
    components["responses"] = {
        name: {"description": text, "content": _problem()} for text, name in _SHARED.values()
    }
    for path, methods in result["paths"].items():
        for operation in methods.values():
            _complete(operation, guarded=path not in PUBLIC)
    return result


def _problem() -> dict[str, Any]:
    return {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetail"}}}


def _complete(operation: dict[str, Any], *, guarded: bool) -> None:
    responses = operation["responses"]
    for answer in responses.values():
        content = answer.get("content", {})
        shape = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if shape.rpartition("/")[2] in ("ProblemDetail", "HTTPValidationError"):
            answer["content"] = _problem()
    if not guarded:
        return
    operation["security"] = [{"ApiKey": []}]
    for status, (_text, name) in _SHARED.items():
        if status != "413" or "requestBody" in operation:
            responses.setdefault(status, {"$ref": f"#/components/responses/{name}"})
