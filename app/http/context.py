"""Who is asking."""

from __future__ import annotations

from starlette.requests import Request

ANONYMOUS = "anonymous"


def caller(request: Request) -> str:
    """The client whose key the request carries, or `anonymous` where authentication is off."""
    client: str = request.scope.get("airlift.client") or ANONYMOUS
    return client


def owner_filter(request: Request) -> str | None:
    """Whose things may be seen: the caller's, or everybody's where authentication is off."""
    client: str | None = request.scope.get("airlift.client")
    return client
