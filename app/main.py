"""The application's factory: it builds all objects and passes them down; none are global."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.responses import Response

from app import __version__
from app.db.pool import Database, DatabaseUnavailableError
from app.db.redis import RedisGate
from app.http import health, openapi, problems
from app.http.auth import BARE, DOCS_ASSETS, PUBLIC, KeyStore, scopes_of
from app.http.context import context_of
from app.http.drain import Drain
from app.http.expected import Expected
from app.http.gate import GateMiddleware
from app.http.health import Health
from app.http.limits import LimitsMiddleware
from app.http.middleware import RequestMiddleware
from app.http.plain import plain
from app.http.ratelimit import RateLimiter
from app.http.root import router as root_router
from app.http.routes import UNMATCHED, RouteTable
from app.items.router import router as items_router
from app.jobs.hints import HintSender
from app.jobs.router import router as jobs_router
from app.jobs.service import JobService
from app.jobs.watch import QueueWatch
from app.observability import logging as app_logging
from app.observability import metrics
from app.predict.artefacts import ModelError, Models, try_models
from app.predict.router import BODIES
from app.predict.router import router as predict_router
from app.predict.service import Predictor
from app.reports.renderer import Renderer
from app.reports.router import router as reports_router
from app.settings import ConfigurationError, Settings, get_settings
from app.sources import registry

# These endpoints take only the request, so the framework does not have to call them.
PLAIN = (predict_router, health.router, root_router)
# Routes are tried in this order: the busiest first.
ROUTERS = (predict_router, jobs_router, reports_router, items_router, health.router, root_router)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application.

    A wrong setting raises `ConfigurationError`. A damaged model makes the application unready.
    """
    settings = settings or get_settings()
    app_logging.configure(
        settings.log_level, service="app", release=settings.release, colour=settings.colour
    )
    models = try_models(settings.models_dir)

    app: FastAPI = FastAPIOffline(
        title="Data Collection Service",
        summary="Collects, classifies and summarises records, without the internet.",
        description=openapi.DESCRIPTION,
        version=__version__,
        openapi_tags=openapi.TAGS,
        static_url=DOCS_ASSETS,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        lifespan=_lifespan,
        # Without this, each request looks for a telemetry exporter, and there is none.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    database = Database(settings, application=f"airlift-app-{settings.colour}")
    redis = RedisGate(settings)
    drain = Drain(settings.drain_file)
    state = app.state
    state.settings = settings
    state.models = models
    state.predictor = Predictor(models, cache_bytes=settings.predict_cache_bytes)
    state.database = database
    state.redis = redis
    state.drain = drain
    state.queue = QueueWatch(database, settings.queue_age_degraded_seconds)
    state.health = Health(settings, drain, database, redis, models, queue=state.queue.finding)
    state.renderer = Renderer(database)
    state.jobs = JobService(
        database, HintSender(redis), registry.build(settings), settings.job_max_attempts
    )

    for router in ROUTERS:
        app.include_router(router)
    app.router.routes[:0] = plain(*PLAIN, openapi.router)
    problems.install(app, frozenset(registry.CONFIGS))
    _install_unavailable(app)
    if settings.faults_enabled:
        _install_faults(app)
    openapi.install(app, BODIES)

    _add_layers(app, settings, database)
    return app


def _install_faults(app: FastAPI) -> None:
    """Add the endpoints that fail on purpose, if their module exists: only in the local stack."""
    try:
        faults = importlib.import_module("airlift_faults")
    except ModuleNotFoundError:
        msg = "FAULTS_ENABLED: this image has no faults; only the local stack brings them along"
        raise ConfigurationError(msg) from None
    app.state.faults = faults.install(app)


def _add_layers(app: FastAPI, settings: Settings, database: Database) -> None:
    document = app.openapi()
    app.state.document = openapi.encode(document)
    paths = document["paths"]
    keys = KeyStore(database, settings.auth_cache_seconds) if settings.auth_enabled else None
    limiter = app.state.limiter = RateLimiter(settings)
    faults: list[str] = getattr(app.state, "faults", [])
    table = RouteTable([*paths, *PUBLIC, *faults], prefixes=[DOCS_ASSETS])
    # The layer that is added last is the outermost.
    app.add_middleware(LimitsMiddleware, settings=settings, expected=Expected(paths, BARE))
    app.add_middleware(
        GateMiddleware, keys=keys, limiter=limiter, needed=scopes_of(paths), free=faults
    )
    app.add_middleware(
        RequestMiddleware, routes=table, timeout_seconds=settings.request_timeout_seconds
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the resources of one process, after the fork; wait for no dependency."""
    state = app.state
    publish(state.settings, state.models)
    if not state.settings.auth_enabled:
        app_logging.get_logger("app").warning(
            "authentication is off: anybody who reaches this port may use it; "
            "set AUTH_ENABLED=true on a site"
        )
    if not state.limiter.configured:
        app_logging.get_logger("app").warning("requests are not limited: REDIS_URL is not set")
    await state.database.open()
    watcher = asyncio.create_task(state.queue.watch()) if state.database.configured else None
    try:
        yield
    finally:
        if watcher is not None:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
        await state.database.close()
        await state.redis.close()
        await state.limiter.close()


def publish(settings: Settings, models: Models | ModelError) -> None:
    """Set the metrics that describe this release, and create the counters at zero."""
    metrics.BUILD_INFO.labels(settings.release, settings.revision, settings.colour).set(1)
    # A counter without a sample has no series, and a rate needs a first value.
    metrics.ERRORS.labels(UNMATCHED, "none")
    if isinstance(models, ModelError):
        app_logging.get_logger("app").critical("predictions are refused", reason=str(models))
        return
    for model in models.all:
        metrics.MODEL_INFO.labels(model.name, model.version, model.info["sha256"]).set(1)


def _install_unavailable(app: FastAPI) -> None:
    async def on_unavailable(request: Request, error: Exception) -> Response:
        context_of(request.scope).error = "postgres-unavailable"
        app_logging.get_logger("app").warning("Postgres is not available", reason=str(error))
        configured = request.app.state.database.configured
        detail = "try again in a few seconds" if configured else "DATABASE_URL is not set"
        problem = problems.unavailable("Postgres", detail)
        return problem.response(request.scope["path"])

    app.add_exception_handler(DatabaseUnavailableError, on_unavailable)


def __getattr__(name: str) -> Any:
    """Return `app.main:app`, for tools that expect it; build it on first use, not on import."""
    if name == "app":
        built = create_app()
        globals()["app"] = built
        return built
    raise AttributeError(name)
