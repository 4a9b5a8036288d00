"""What the layers know of a request and its client."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Scope

ANONYMOUS = "anonymous"
_KEY = "airlift"


@dataclass(slots=True)
class RequestContext:
    """One request on its way through the layers; the outermost begins it."""

    request_id: str = ""
    #: The route's template: the label of metrics and logs.
    endpoint: str = ""
    #: The client of the request's key; None where authentication is off.
    client: str | None = None
    #: What a 5xx answer is about, for the metric of errors.
    error: str | None = None
    #: Whether the body is being read: then a timeout is the sender's doing.
    uploading: bool = False


def context_of(scope: Scope) -> RequestContext:
    """The context of a request; an empty one if no layer has begun it."""
    found: RequestContext | None = scope.get(_KEY)
    if found is None:
        found = scope[_KEY] = RequestContext()
    return found


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of a name (in lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def caller(request: Request) -> str:
    """The client whose key the request carries, or `anonymous` where authentication is off."""
    return context_of(request.scope).client or ANONYMOUS


def owner_filter(request: Request) -> str | None:
    """Return whose data is visible: the caller's, or everything where authentication is off."""
    return context_of(request.scope).client
