"""The busiest endpoints, called without the framework's way there.

FastAPI finds a route, solves dependencies and opens three exit stacks for each request, which
costs more than a prediction, and about what a statement in Postgres costs. An endpoint that
returns a response and takes the request, and maybe the id in its path, needs none of it, so this
innermost layer calls it at once. It is the very function that FastAPI routes to and documents;
errors go to the handlers that are registered with the application. Whatever has to be checked
(an id of another form, a query) goes to the framework.
"""

from __future__ import annotations

import inspect
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_ID = "([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"


class Endpoint(NamedTuple):
    """A function to call, whether it takes a query, and where the path has an id, if it does."""

    call: Callable[..., Awaitable[Response]]
    queries: bool
    path: re.Pattern[str] | None = None


def endpoints(*routers: APIRouter) -> dict[tuple[str, str], Endpoint]:
    """The endpoints of some routers that need nothing of the framework, by method and template."""
    return {
        (method, route.path): endpoint
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        if (endpoint := _plain(route)) is not None
        for method in route.methods or ()
    }


def _plain(route: APIRoute) -> Endpoint | None:
    needs = route.dependant
    signature = inspect.signature(route.endpoint)
    if (
        signature.return_annotation not in ("Response", "JSONResponse")
        or not inspect.iscoroutinefunction(route.endpoint)
        or next(iter(signature.parameters), None) != "request"
        or needs.dependencies
        or needs.header_params
        or needs.cookie_params
        or needs.body_params
        or any(parameter.field_info.is_required() for parameter in needs.query_params)
    ):
        return None
    queries = bool(needs.query_params)
    names = [parameter.name for parameter in needs.path_params]
    if not names:
        return Endpoint(route.endpoint, queries)
    if [signature.parameters[name].annotation for name in names] != ["uuid.UUID"]:
        return None
    before, _, after = route.path.partition(f"{{{names[0]}}}")
    path = re.compile(re.escape(before) + _ID + re.escape(after))
    return Endpoint(route.endpoint, queries, path)


class HotEndpoints:
    """Calls an endpoint by method and template; everything else goes on to the framework."""

    def __init__(self, app: ASGIApp, *, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        endpoint = self._endpoints.get((scope["method"], scope["airlift.endpoint"]))
        arguments = None if endpoint is None else _arguments(endpoint, scope)
        if endpoint is None or arguments is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await endpoint.call(request, *arguments)
        except Exception as error:
            response = await _handled(request, error)
        await response(scope, receive, send)


def _arguments(endpoint: Endpoint, scope: Scope) -> tuple[uuid.UUID, ...] | None:
    """What the endpoint takes besides the request; None if the framework must look at it."""
    if endpoint.queries and scope["query_string"]:
        return None
    if endpoint.path is None:
        return ()
    found = endpoint.path.fullmatch(scope["path"])
    return None if found is None else (uuid.UUID(found[1]),)


async def _handled(request: Request, error: Exception) -> Response:
    """The answer of the handler registered for this kind of error; raises it if there is none."""
    handlers = request.app.exception_handlers
    for kind in type(error).__mro__:
        if kind in handlers and kind is not Exception:
            response: Response = await handlers[kind](request, error)
            return response
    raise error
