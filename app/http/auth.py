"""API keys: look up the permissions of a key in Postgres and cache them for a few seconds.

Only the sha256 of a key is stored; keys are long and random, so a slow hash would add nothing. A
key is looked up again after `AUTH_CACHE_SECONDS`, so a revoked key stops working within that time,
without a restart. Keys are found by digest and not compared byte by byte, so response times reveal
nothing about them. While Postgres does not answer, the result is 503, never access.

All paths need a key unless they are on the list below, so a new endpoint is protected by default.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple, TypeVar

from starlette.types import Scope

from app.db.keys import SCOPES
from app.db.pool import Database, DatabaseUnavailableError
from app.flight import SingleFlight
from app.http.problems import Problem, unavailable
from app.observability import metrics
from app.observability.logging import get_logger

DOCS_ASSETS = "/static-offline-docs"
#: The documentation's pages, which are not in the OpenAPI document.
BARE = frozenset({"/docs", "/redoc", "/openapi.json"})
PUBLIC = BARE | {
    "/",
    "/health",
    "/healthz",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/docs/oauth2-redirect",
}
_CACHED_KEYS = 4096
#: Invalid keys have their own cache, so that guesses do not evict valid keys.
_CACHED_MISSES = 256
_MAX_KEY = 512

T = TypeVar("T")
#: The context that is held during the look-up of an unknown key.
Hold = Callable[[], AbstractAsyncContextManager[object]]

log = get_logger("app.auth")


class Credential(NamedTuple):
    """The client and permissions of a valid key."""

    client: str
    key_id: str
    scopes: frozenset[str]
    rate_limit_per_min: int | None


class KeyStore:
    """Looks up the credential of a key, and caches it."""

    def __init__(self, database: Database, cache_seconds: float) -> None:
        self._database = database
        self._seconds = cache_seconds
        self._good: OrderedDict[bytes, tuple[float, Credential]] = OrderedDict()
        self._wrong: OrderedDict[bytes, float] = OrderedDict()
        self._asked = SingleFlight[bytes, Credential | None]()

    async def authenticate(self, scope: Scope, hold: Hold = nullcontext) -> Credential:
        """Return the credential of a request; raise a 401 problem, the same for every cause.

        `hold` is entered before Postgres is asked about a key that was never valid here. It may
        refuse with a problem, so that guesses cost no look-up.
        """
        keys = [value for name, value in scope["headers"] if name == b"x-api-key"]
        if len(keys) != 1 or not 0 < len(keys[0]) <= _MAX_KEY:
            metrics.AUTHENTICATIONS.labels("missing").inc()
            raise _unauthorised()
        try:
            credential = await self._find(bytes(keys[0]), hold)
        except Problem:
            raise
        except DatabaseUnavailableError as error:
            metrics.AUTHENTICATIONS.labels("unavailable").inc()
            raise unavailable("Authentication", "keys cannot be checked now") from error
        except Exception as error:
            # A missing table or grant must neither give access nor look like a client's error.
            metrics.AUTHENTICATIONS.labels("unavailable").inc()
            log.error("keys cannot be checked", exc_info=error)
            raise unavailable("Authentication", "keys cannot be checked now") from error
        if credential is None:
            metrics.AUTHENTICATIONS.labels("refused").inc()
            raise _unauthorised()
        metrics.AUTHENTICATIONS.labels("accepted").inc()
        return credential

    async def _find(self, key: bytes, hold: Hold) -> Credential | None:
        digest = hashlib.sha256(key).digest()
        now = time.monotonic()
        known = self._good.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        if self._wrong.get(digest, now) > now:
            return None
        # Share the look-up: when the entry of a busy key expires, a hundred requests come at once.
        return await self._asked.run(digest, lambda: self._ask(digest, hold))

    async def _ask(self, digest: bytes, hold: Hold) -> Credential | None:
        # Renew a key that was valid without a hold, whatever the load of its address.
        async with nullcontext() if digest in self._good else hold():
            credential = await self._look_up(digest)
        until = time.monotonic() + self._seconds
        if credential is None:
            self._good.pop(digest, None)
            _keep(self._wrong, digest, until, _CACHED_MISSES)
        else:
            self._wrong.pop(digest, None)
            _keep(self._good, digest, (until, credential), _CACHED_KEYS)
        return credential

    async def _look_up(self, digest: bytes) -> Credential | None:
        row = await self._database.fetch_one(
            """SELECT client, id, scopes, rate_limit_per_min FROM api_keys
               WHERE key_hash = %s AND revoked_at IS NULL""",
            digest,
        )
        return None if row is None else _credential(row)


def _keep(cache: OrderedDict[bytes, T], digest: bytes, value: T, most: int) -> None:
    cache[digest] = value
    cache.move_to_end(digest)
    if len(cache) > most:
        cache.popitem(last=False)


def _credential(row: Mapping[str, Any]) -> Credential:
    scopes = SCOPES if row["scopes"] is None else row["scopes"]
    return Credential(row["client"], row["id"], frozenset(scopes), row["rate_limit_per_min"])


def is_public(path: str) -> bool:
    """Return whether a path needs no key: probes, metrics, the documentation."""
    return path in PUBLIC or path.startswith(f"{DOCS_ASSETS}/")


def scopes_of(paths: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the scope that each guarded path of an OpenAPI document needs: its tag's name."""
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
        "send one valid key in the X-API-Key header",
        headers={"www-authenticate": 'ApiKey header="X-API-Key"'},
    )
