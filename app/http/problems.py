"""Errors as `application/problem+json` (RFC 9457).

A problem never repeats values that the client sent, only field names and messages.
"""

from __future__ import annotations

import http
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from structlog.contextvars import get_contextvars

from app.http.context import context_of

MEDIA_TYPE = "application/problem+json"
_MAX_FIELD_ERRORS = 20
# FastAPI's message if its JSON parser fails for a reason other than syntax.
_UNREADABLE = "There was an error parsing the body"


class FieldError(BaseModel):
    """One thing that is wrong with one field."""

    field: str = Field(examples=["config.path"])
    message: str = Field(examples=["Field required"])
    code: str = Field(examples=["missing"])


class ProblemDetail(BaseModel):
    """The shape of every error."""

    type: str = Field(examples=["urn:airlift:problem:validation"])
    title: str = Field(examples=["The request is not valid"])
    status: int = Field(examples=[422])
    detail: str | None = Field(default=None, examples=["1 field is wrong: text"])
    instance: str | None = Field(default=None, examples=["/predict"])
    request_id: str | None = Field(default=None, examples=["0f8fad5bd9cb469fa16570867728950e"])
    errors: list[FieldError] | None = None


class Problem(Exception):  # noqa: N818 - the RFC's term
    """An error that becomes the HTTP answer."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldError] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = list(errors)
        self.extra = dict(extra or {})

    def response(self, instance: str | None = None) -> Response:
        """Return the answer for this problem."""
        body: dict[str, Any] = {
            "type": f"urn:airlift:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            body["detail"] = self.detail
        if instance:
            body["instance"] = instance
        request_id = get_contextvars().get("request_id")
        if request_id:
            body["request_id"] = request_id
        if self.errors:
            body["errors"] = [error.model_dump() for error in self.errors]
        body.update(self.extra)
        # Escape to ASCII: names of unknown fields come from the client and may contain lone
        # surrogates.
        return Response(
            json.dumps(body).encode("ascii"),
            status_code=self.status,
            media_type=MEDIA_TYPE,
            headers={"cache-control": "no-store", **self.headers},
        )


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem from a layer that the application's handlers do not reach."""
    _note(problem, scope)
    await problem.response(scope["path"])(scope, receive, send)


def _note(problem: Problem, scope: Scope) -> None:
    """Record the cause of a 5xx answer in the scope, for the metric of errors."""
    if problem.status >= 500:
        context_of(scope).error = problem.slug


def unavailable(what: str, detail: str, *, retry_after: int = 5) -> Problem:
    """Return a 503 problem for an unavailable dependency."""
    return Problem(
        503,
        "unavailable",
        f"{what} is not available",
        detail,
        headers={"retry-after": str(retry_after)},
    )


def field_problem(field: str, message: str, code: str = "value_error") -> Problem:
    """Return a 422 problem for one field whose type is right but whose value is wrong."""
    return Problem(
        422,
        "validation",
        "The request is not valid",
        f"{field}: {message}",
        errors=[FieldError(field=field, message=message, code=code)],
    )


def _field_error(item: Mapping[str, Any], union_tags: frozenset[str]) -> FieldError:
    parts = [str(part)[:100] for part in item["loc"]]
    message, code = str(item["msg"])[:300], str(item["type"])
    context = item.get("ctx") or {}
    # Pydantic puts the location first ("body"); names of body fields omit it.
    if len(parts) > 1 and parts[0] in ("body", "query", "path", "header"):
        parts = parts[1:]
    # The tag of a union's member is not a field of the body.
    if len(parts) > 1 and parts[0] in union_tags:
        parts = parts[1:]
    if code in ("union_tag_invalid", "union_tag_not_found"):
        field = str(context.get("discriminator", "")).strip("'")
        parts = [*parts, field] if parts != ["body"] else [field]
        expected = context.get("expected_tags")
        message = f"must be one of {expected}" if expected else "Field required"
    return FieldError(field=".".join(parts[:10]), message=message, code=code)


def _from_validation(error: RequestValidationError, union_tags: frozenset[str]) -> Problem:
    items = list(error.errors())
    if any(item["type"] == "json_invalid" for item in items):
        position = items[0]["loc"][-1]
        return Problem(
            422,
            "malformed-json",
            "The body is not JSON",
            f"JSON cannot be read at character {position}",
            errors=[FieldError(field="body", message="JSON decode error", code="json_invalid")],
        )
    errors = [_field_error(item, union_tags) for item in items[:_MAX_FIELD_ERRORS]]
    names = ", ".join(dict.fromkeys(item.field for item in errors))
    count = len(items)
    noun = "field is" if count == 1 else "fields are"
    return Problem(
        422,
        "validation",
        "The request is not valid",
        f"{count} {noun} wrong: {names}",
        errors=errors,
    )


def _from_http(error: HTTPException) -> Problem:
    try:
        title = http.HTTPStatus(error.status_code).phrase
    except ValueError:
        title = "Error"
    if error.status_code == 400 and error.detail == _UNREADABLE:
        return Problem(
            400,
            "malformed-json",
            "The body is not JSON",
            "it is not UTF-8 text, or a number in it has too many digits",
            errors=[FieldError(field="body", message="cannot be read", code="json_unreadable")],
        )
    slug = title.lower().replace(" ", "-").replace("'", "")
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    # Omit the detail: it comes from the framework, or from an exception that it caught.
    return Problem(error.status_code, slug, title, headers=headers)


def _methods(request: Request) -> str:
    """Return the methods of a path; the framework names only those of its first route."""
    endpoint = context_of(request.scope).endpoint
    methods = {*request.app.openapi()["paths"].get(endpoint, ("get",))}
    if "get" in methods:
        methods.add("head")
    return ", ".join(sorted(method.upper() for method in methods))


def install(app: FastAPI, union_tags: frozenset[str] = frozenset()) -> None:
    """Convert all errors of `app` to problems; `union_tags` are tags of unions in bodies."""

    async def on_problem(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            problem = _from_validation(error, union_tags)
        elif isinstance(error, HTTPException):
            problem = _from_http(error)
            if problem.status == 405:
                problem.headers["allow"] = _methods(request)
        else:
            assert isinstance(error, Problem)  # noqa: S101 - the handler is registered for this class
            problem = error
        _note(problem, request.scope)
        # Not `request.url`: it cannot be built if the query is not valid UTF-8.
        return problem.response(request.scope["path"])

    for kind in (Problem, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, on_problem)
