"""Plain Starlette routes for endpoints that take the request and nothing else.

FastAPI solves dependencies and opens exit stacks for each request, which costs more than a
prediction. It still has these endpoints, and documents them; their plain routes come first.
"""

from __future__ import annotations

import inspect

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Route


def plain(*routers: APIRouter) -> list[Route]:
    """A plain route for each endpoint of some routers; raises for one that needs FastAPI."""
    routes = []
    for route in (route for router in routers for route in router.routes):
        if not isinstance(route, APIRoute) or [*inspect.signature(route.endpoint).parameters] != [
            "request"
        ]:
            message = f"{getattr(route, 'path', route)} takes more than the request"
            raise TypeError(message)
        found = Route(route.path, route.endpoint)
        # Starlette adds HEAD to GET; the OpenAPI document says which methods there are.
        found.methods = set(route.methods or ())
        routes.append(found)
    return routes
