"""Endpoints of the local stack that fail on purpose; scripts/02, 03 and 05 call them.

docker-compose.yml mounts this file into the app's containers and sets FAULTS_ENABLED. The image
does not have it, so an installed site cannot have these endpoints, whatever its settings say.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.http.context import context_of
from app.http.problems import Problem

MOST_SECONDS = 10.0


class OnPurposeError(RuntimeError):
    """What `/faults/exception` raises; nobody catches it."""


def _number(request: Request, name: str, default: float, least: float, most: float) -> float:
    try:
        value = float(request.query_params.get(name, default))
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise Problem(422, "validation", f"{name} must be a number from {least:g} to {most:g}")
    return value


async def error(request: Request) -> Response:
    """Answer 500, or `?status=` from 500 to 599."""
    status = int(_number(request, "status", 500, 500, 599))
    context_of(request.scope).error = "on-purpose"
    problem = Problem(status, "on-purpose", "Failed on purpose", "asked for by the request")
    return problem.response(request.url.path)


async def exception(_request: Request) -> Response:
    """Raise what nobody catches: a stack trace in the log, 500 for the client."""
    raise OnPurposeError("raised on purpose")


async def slow(request: Request) -> Response:
    """Answer after half a second, or `?seconds=` up to ten."""
    seconds = _number(request, "seconds", 0.5, 0, MOST_SECONDS)
    await asyncio.sleep(seconds)
    return JSONResponse({"slept_seconds": seconds})


def install(app: FastAPI) -> list[str]:
    """Add the endpoints to an application; return their paths."""
    routes = [Route(f"/faults/{one.__name__}", one) for one in (error, exception, slow)]
    app.router.routes[:0] = routes
    return [route.path for route in routes]
