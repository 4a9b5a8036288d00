"""The busiest endpoints, called without the framework's way there.

FastAPI finds a route, solves dependencies and opens three exit stacks for each request, which
costs more than a prediction. An endpoint that takes the request and returns a response needs none
of it, so this innermost layer calls it at once. It is the very function that FastAPI routes to
and documents; errors go to the handlers that are registered with the application.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


def endpoints(*routers: APIRouter) -> dict[tuple[str, str], Endpoint]:
    """The endpoints of some routers that take nothing but the request, by method and path."""
    return {
        (method, route.path): route.endpoint
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and _is_plain(route)
        for method in route.methods or ()
    }


def _is_plain(route: APIRoute) -> bool:
    parameters = inspect.signature(route.endpoint).parameters
    return (
        list(parameters) == ["request"]
        and inspect.iscoroutinefunction(route.endpoint)
        and "{" not in route.path
        and inspect.signature(route.endpoint).return_annotation in ("Response", "JSONResponse")
    )


class HotEndpoints:
    """Calls an endpoint by method and path; everything else goes on to the framework."""

    def __init__(self, app: ASGIApp, *, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        endpoint = self._endpoints.get((scope["method"], scope["path"]))
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request)
        except Exception as error:
            response = await _handled(request, error)
        await response(scope, receive, send)


async def _handled(request: Request, error: Exception) -> Response:
    """The answer of the handler registered for this kind of error; raises it if there is none."""
    handlers = request.app.exception_handlers
    for kind in type(error).__mro__:
        if kind in handlers and kind is not Exception:
            response: Response = await handlers[kind](request, error)
            return response
    raise error
