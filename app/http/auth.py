"""API keys: a second ASGI layer that lets nobody past without one, where it is on.

Paths are guarded unless they are on the list below, so a new endpoint cannot be forgotten; the
check comes before a body is read. Keys are stored as sha256 (they are long and random, so a slow
hash would add nothing), kept for a few seconds, and looked up again then: a revoked key stops
working within `AUTH_CACHE_SECONDS`. When Postgres cannot be asked the answer is 503, never open.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.db.pool import Database, DatabaseUnavailableError
from app.http.problems import Problem, unavailable
from app.observability import metrics
from app.observability.logging import get_logger

DOCS_ASSETS = "/static-offline-docs"
PUBLIC = frozenset(
    {
        "/",
        "/health",
        "/healthz",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        "/openapi.json",
    }
)
_CACHED_KEYS = 4096
_MAX_KEY = 512

log = get_logger("app.auth")


class KeyStore:
    """Tells whose a key is."""

    def __init__(self, database: Database, cache_seconds: float) -> None:
        self._database = database
        self._seconds = cache_seconds
        self._cache: OrderedDict[bytes, tuple[float, str | None]] = OrderedDict()

    async def client_of(self, key: bytes) -> str | None:
        """Whose `key` is; raises `DatabaseUnavailableError` if nobody can tell."""
        digest = hashlib.sha256(key).digest()
        now = time.monotonic()
        cached = self._cache.get(digest)
        if cached is not None and cached[0] > now:
            return cached[1]
        row = await self._database.fetch_one(
            "SELECT client FROM api_keys WHERE key_hash = %s AND revoked_at IS NULL", digest
        )
        client = None if row is None else str(row["client"])
        self._cache[digest] = (now + self._seconds, client)
        self._cache.move_to_end(digest)
        if len(self._cache) > _CACHED_KEYS:
            self._cache.popitem(last=False)
        return client


class AuthMiddleware:
    """Lets a request pass if its path is public or its key is good."""

    def __init__(self, app: ASGIApp, *, keys: KeyStore) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] == "lifespan" or _is_public(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # nothing here speaks anything else; refused by not answering
        try:
            scope["airlift.client"] = client = await self._authenticate(scope)
        except Problem as problem:
            if problem.status >= 500:
                scope["airlift.error"] = problem.slug
            await problem.response(scope["path"])(scope, receive, send)
            return
        with structlog.contextvars.bound_contextvars(client=client):
            await self._app(scope, receive, send)

    async def _authenticate(self, scope: Scope) -> str:
        keys = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(keys) != 1 or not 0 < len(keys[0]) <= _MAX_KEY:
            metrics.AUTHENTICATIONS.labels("missing").inc()
            raise _unauthorised("send your key in the X-API-Key header")
        try:
            client = await self._keys.client_of(bytes(keys[0]))
        except DatabaseUnavailableError as error:
            metrics.AUTHENTICATIONS.labels("unavailable").inc()
            raise unavailable("Authentication", "keys cannot be checked now") from error
        except Exception as error:
            # A missing table or right: it must never let somebody in, nor look like their fault.
            metrics.AUTHENTICATIONS.labels("unavailable").inc()
            log.error("keys cannot be checked", exc_info=error)
            raise unavailable("Authentication", "keys cannot be checked now") from error
        if client is None:
            metrics.AUTHENTICATIONS.labels("refused").inc()
            raise _unauthorised("the key is not known or was revoked")
        metrics.AUTHENTICATIONS.labels("accepted").inc()
        return client


def _is_public(scope: Scope) -> bool:
    path: str = scope["path"]
    return path in PUBLIC or path.startswith(f"{DOCS_ASSETS}/")


def _unauthorised(detail: str) -> Problem:
    return Problem(
        401,
        "unauthorised",
        "A valid API key is needed",
        detail,
        headers={"www-authenticate": 'ApiKey header="X-API-Key"'},
    )
