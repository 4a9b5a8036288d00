"""The state of one request that the layers share."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Scope

ANONYMOUS = "anonymous"
_KEY = "airlift"


@dataclass(slots=True)
class RequestContext:
    """The state of one request; the outermost layer creates it."""

    request_id: str = ""
    #: The route's template, as a label of metrics and logs.
    endpoint: str = ""
    #: The client that owns the request's key; None without authentication.
    client: str | None = None
    #: The cause of a 5xx answer, for the metric of errors.
    error: str | None = None
    #: Whether the body is being read: then the client caused a timeout.
    uploading: bool = False


def context_of(scope: Scope) -> RequestContext:
    """Return the context of a request, or an empty one if no layer has created it."""
    found: RequestContext | None = scope.get(_KEY)
    if found is None:
        found = scope[_KEY] = RequestContext()
    return found


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header with this name (in lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def caller(request: Request) -> str:
    """Return the client that owns the request's key, or `anonymous` without authentication."""
    return context_of(request.scope).client or ANONYMOUS


def owner_filter(request: Request) -> str | None:
    """Return the client whose data is visible, or None (all data) without authentication."""
    return context_of(request.scope).client
