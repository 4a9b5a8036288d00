"""Plain Starlette routes for endpoints that take only the request.

FastAPI resolves dependencies and opens exit stacks per request, which takes longer than a
prediction. It keeps these endpoints for the documentation, but their plain routes match first.
"""

from __future__ import annotations

import inspect

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Route


def plain(*routers: APIRouter) -> list[Route]:
    """Return a plain route per endpoint; raise an error for an endpoint that needs FastAPI."""
    routes = []
    for route in (route for router in routers for route in router.routes):
        if not isinstance(route, APIRoute) or [*inspect.signature(route.endpoint).parameters] != [
            "request"
        ]:
            message = f"{getattr(route, 'path', route)} takes more than the request"
            raise TypeError(message)
        found = Route(route.path, route.endpoint)
        # Starlette adds HEAD to GET, but the OpenAPI document defines the methods.
        found.methods = set(route.methods or ())
        routes.append(found)
    return routes
