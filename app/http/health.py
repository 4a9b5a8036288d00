"""Liveness and readiness, for the service and for the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from app.db import schema
from app.db.pool import Database, DatabaseUnavailableError
from app.db.redis import RedisGate, RedisUnavailableError
from app.flight import SingleFlight
from app.http.drain import Drain
from app.observability import metrics
from app.settings import Settings
from app.threads import alone

T = TypeVar("T")
_OK = "ok"
_TIMEOUT = 3.0


class Alive(BaseModel):
    """The process answers requests."""

    status: str = Field(examples=["ok"])
    release: str
    colour: str


class Readiness(BaseModel):
    """Readiness of the process, and the result of each check."""

    status: str = Field(examples=["ready"], description="ready, degraded or unready")
    checks: dict[str, str] = Field(
        examples=[{"postgres": "ok", "schema": "ok", "models": "ok", "redis": "ok", "queue": "ok"}]
    )
    release: str
    colour: str


class Health:
    """Answers probes and scrapes of one process.

    `models` are the loaded models, or the error that prevented loading them.
    """

    def __init__(
        self,
        settings: Settings,
        drain: Drain,
        database: Database,
        redis: RedisGate,
        models: object,
        *,
        queue: Callable[[], str | None],
    ) -> None:
        self._identity = {"release": settings.release, "colour": settings.colour}
        self._drain = drain
        self._database = database
        self._redis = redis
        self._models = models
        self._queue = queue
        self._looks = SingleFlight[None, tuple[int, dict[str, Any]]]()
        self._collections = SingleFlight[None, bytes]()
        self._alive = JSONResponse({"status": _OK, **self._identity})

    def alive(self) -> Response:
        """Return liveness; checks nothing, so the answer is always the same."""
        return self._alive

    async def exposition(self) -> bytes:
        """Return the metrics of all processes; concurrent scrapes share one collection."""
        return await self._collections.run(None, lambda: alone("metrics", metrics.render))

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """Return status code and body of a readiness answer; concurrent probes share one check."""
        return await self._looks.run(None, self._look)

    async def _look(self) -> tuple[int, dict[str, Any]]:
        (postgres, schema_state), redis = await asyncio.gather(
            self._check_postgres(), self._check_redis()
        )
        checks = {
            "postgres": postgres,
            "schema": schema_state,
            "models": str(self._models) if isinstance(self._models, Exception) else _OK,
            "redis": redis,
        }
        checks["queue"] = self._queue() or _OK
        draining = self._drain.active
        if draining:
            checks["drain"] = "this process takes no new work"
        needed = ("postgres", "schema", "models")
        if draining or any(checks[name] != _OK for name in needed):
            return 503, {"status": "unready", "checks": checks, **self._identity}
        status = "ready" if set(checks.values()) == {_OK} else "degraded"
        return 200, {"status": status, "checks": checks, **self._identity}

    async def _check_postgres(self) -> tuple[str, str]:
        if not self._database.configured:
            return "DATABASE_URL is not set", "not checked"
        try:
            finding = await _within(_TIMEOUT, schema.check(self._database))
        except (DatabaseUnavailableError, TimeoutError) as error:
            metrics.DEPENDENCY_UP.labels("postgres").set(0)
            return f"not available ({_kind(error)})", "not checked"
        metrics.DEPENDENCY_UP.labels("postgres").set(1)
        return _OK, finding or _OK

    async def _check_redis(self) -> str:
        if not self._redis.configured:
            return "REDIS_URL is not set"
        try:
            await _within(_TIMEOUT, self._redis.ping())
        except (RedisUnavailableError, TimeoutError) as error:
            metrics.DEPENDENCY_UP.labels("redis").set(0)
            return f"not available ({_kind(error)})"
        metrics.DEPENDENCY_UP.labels("redis").set(1)
        return _OK


def _kind(error: Exception) -> str:
    """Return the class of a dependency's failure, not its message: probes need no key."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT:g} s"
    return type(error.__cause__ or error).__name__


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; raise TimeoutError after `seconds`.

    `asyncio.timeout` also waits until the cancelled work ends. With a frozen server that takes
    psycopg ten more seconds.
    """
    task = asyncio.create_task(work)
    # Retrieve the result of the abandoned task, so that asyncio does not warn about it.
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise TimeoutError
    return task.result()


router = APIRouter(tags=["health"])


def _health(request: Request) -> Health:
    health: Health = request.app.state.health
    return health


@router.get("/health", name="alive", response_model=Alive, summary="The process answers")
@router.get("/healthz", name="healthz", response_model=Alive, summary="The process answers (alias)")
@router.get("/health/live", response_model=Alive, summary="The process answers (alias)")
async def live(request: Request) -> Response:
    """Liveness: touches no dependency."""
    return _health(request).alive()


@router.get(
    "/health/ready",
    response_model=Readiness,
    summary="The process is ready for requests",
    responses={503: {"model": Readiness, "description": "A check failed, or it drains"}},
)
async def ready(request: Request) -> JSONResponse:
    """Readiness: Postgres, a compatible schema and the models; Redis only degrades."""
    status, body = await _health(request).ready()
    return JSONResponse(body, status_code=status, headers={"cache-control": "no-store"})


@router.get(
    "/metrics",
    name="metrics",
    response_class=Response,
    summary="Prometheus metrics of all processes of this container",
    responses={200: {"content": {"text/plain": {}}}},
)
async def exposition(request: Request) -> Response:
    """Prometheus text; touches no dependency."""
    text = await _health(request).exposition()
    return Response(text, headers={"content-type": metrics.CONTENT_TYPE})
