"""API keys: what a key is worth, asked of Postgres and kept for a few seconds.

Keys are stored as sha256 (they are long and random, so a slow hash would add nothing). They are
looked up again after `AUTH_CACHE_SECONDS`, so a revoked key stops working within that time and
nothing is restarted. A key is found by its digest, not compared byte by byte: the time an answer
takes says nothing about any key. When Postgres cannot be asked the answer is 503, never open.

Paths are guarded unless they are on the list below, so a new endpoint cannot be forgotten.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.types import Scope

from app.db.keys import SCOPES
from app.db.pool import Database, DatabaseUnavailableError
from app.flight import SingleFlight
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


class Credential(NamedTuple):
    """What a good key is worth."""

    client: str
    key_id: str
    scopes: frozenset[str]
    rate_limit_per_min: int | None


class KeyStore:
    """Tells what a key is worth."""

    def __init__(self, database: Database, cache_seconds: float) -> None:
        self._database = database
        self._seconds = cache_seconds
        self._cache: OrderedDict[bytes, tuple[float, Credential | None]] = OrderedDict()
        self._asked = SingleFlight[bytes, Credential | None]()

    async def authenticate(self, scope: Scope) -> Credential:
        """The credential of a request; raises a 401 problem, the same whatever is wrong."""
        keys = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(keys) != 1 or not 0 < len(keys[0]) <= _MAX_KEY:
            metrics.AUTHENTICATIONS.labels("missing").inc()
            raise _unauthorised()
        try:
            credential = await self._find(bytes(keys[0]))
        except DatabaseUnavailableError as error:
            metrics.AUTHENTICATIONS.labels("unavailable").inc()
            raise unavailable("Authentication", "keys cannot be checked now") from error
        except Exception as error:
            # A missing table or right: it must never let somebody in, nor look like their fault.
            metrics.AUTHENTICATIONS.labels("unavailable").inc()
            log.error("keys cannot be checked", exc_info=error)
            raise unavailable("Authentication", "keys cannot be checked now") from error
        if credential is None:
            metrics.AUTHENTICATIONS.labels("refused").inc()
            raise _unauthorised()
        metrics.AUTHENTICATIONS.labels("accepted").inc()
        return credential

    async def _find(self, key: bytes) -> Credential | None:
        digest = hashlib.sha256(key).digest()
        now = time.monotonic()
        cached = self._cache.get(digest)
        if cached is not None and cached[0] > now:
            return cached[1]
        # When a busy key's entry runs out, a hundred requests would ask at once.
        return await self._asked.run(digest, lambda: self._ask(digest))

    async def _ask(self, digest: bytes) -> Credential | None:
        row = await self._database.fetch_one(
            """SELECT client, id, scopes, rate_limit_per_min FROM api_keys
               WHERE key_hash = %s AND revoked_at IS NULL""",
            digest,
        )
        credential = None if row is None else _credential(row)
        self._cache[digest] = (time.monotonic() + self._seconds, credential)
        self._cache.move_to_end(digest)
        if len(self._cache) > _CACHED_KEYS:
            self._cache.popitem(last=False)
        return credential


def _credential(row: Mapping[str, Any]) -> Credential:
    scopes = SCOPES if row["scopes"] is None else row["scopes"]
    return Credential(row["client"], row["id"], frozenset(scopes), row["rate_limit_per_min"])


def is_public(path: str) -> bool:
    """Whether a path is open to everybody: probes, metrics, the documentation."""
    return path in PUBLIC or path.startswith(f"{DOCS_ASSETS}/")


def scopes_of(paths: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The scope that each guarded path of an OpenAPI document needs: its tag's name."""
    needed = {}
    for path, methods in paths.items():
        tags = {tag for operation in methods.values() for tag in operation.get("tags", ())}
        found = tags & set(SCOPES)
        if path in PUBLIC:
            continue
        if len(found) != 1:
            message = f"{path} must carry one tag of {', '.join(SCOPES)}: it is the key's scope"
            raise RuntimeError(message)
        needed[path] = found.pop()
    return needed


def _unauthorised() -> Problem:
    return Problem(
        401,
        "unauthorised",
        "A valid API key is needed",
        "send one good key in the X-API-Key header",
        headers={"www-authenticate": 'ApiKey header="X-API-Key"'},
    )
