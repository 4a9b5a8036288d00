"""The ASGI layer that checks key, scope and rate limit in one pass.

It reads no body, so it is cheap to refuse a request without key, scope or remaining quota.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.auth import Credential, KeyStore, is_public
from app.http.context import context_of
from app.http.problems import Problem, refuse
from app.http.ratelimit import RateLimiter, Verdict, address_name, key_name


class GateMiddleware:
    """Passes on requests to public paths, and those with a valid key, its scope and quota left.

    Without a `KeyStore` no key is needed, and requests are counted per address. `needed` maps each
    guarded route to its scope; `free` are paths that are neither guarded nor counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyStore | None,
        limiter: RateLimiter,
        needed: Mapping[str, str],
        free: Collection[str] = (),
    ) -> None:
        self._app = app
        self._keys = keys
        self._limiter = limiter
        self._needed = needed
        self._free = frozenset(free)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no other protocol is supported; no answer is the refusal
        if is_public(scope["path"]) or scope["path"] in self._free:
            await self._app(scope, receive, send)
            return
        credential, refusal = await self._authenticate(scope)
        if refusal is None or refusal.status == 401:
            verdict = await self._count(scope, credential)
            if verdict is not None and verdict.allowed:
                send = _with_headers(send, verdict)
            elif verdict is not None:
                refusal = _too_often(verdict, credential)
        if refusal is None and credential is not None:
            refusal = self._authorise(scope, credential)
        if refusal is not None:
            await refuse(refusal, scope, receive, send)
            return
        if credential is None:
            await self._app(scope, receive, send)
            return
        tokens = structlog.contextvars.bind_contextvars(client=credential.client)
        try:
            await self._app(scope, receive, send)
        finally:
            structlog.contextvars.reset_contextvars(**tokens)

    async def _authenticate(self, scope: Scope) -> tuple[Credential | None, Problem | None]:
        if self._keys is None:
            return None, None
        try:
            credential = await self._keys.authenticate(scope, lambda: self._hold(scope))
        except Problem as problem:
            return None, problem
        context_of(scope).client = credential.client
        return credential, None

    @asynccontextmanager
    async def _hold(self, scope: Scope) -> AsyncIterator[None]:
        """Allow the look-up of a key in Postgres only while its address has quota left."""
        async with self._limiter.hold(_address(scope), self._limiter.default) as verdict:
            if verdict is not None and not verdict.allowed:
                raise _too_often(verdict, None)
            yield

    async def _count(self, scope: Scope, credential: Credential | None) -> Verdict | None:
        if credential is None:
            return await self._limiter.take(_address(scope), self._limiter.default)
        limit = credential.rate_limit_per_min or self._limiter.default
        return await self._limiter.take(key_name(credential.key_id), limit)

    def _authorise(self, scope: Scope, credential: Credential) -> Problem | None:
        needed = self._needed.get(context_of(scope).endpoint)
        if needed is None or needed in credential.scopes:
            return None
        return Problem(
            403,
            "scope-missing",
            "The key lacks a scope",
            f"the request needs a key with the scope {needed}",
            extra={"scope": needed},
        )


def _address(scope: Scope) -> str:
    return address_name((scope.get("client") or ("",))[0])


def _numbers(verdict: Verdict) -> tuple[tuple[str, int], ...]:
    return (
        ("ratelimit-limit", verdict.limit),
        ("ratelimit-remaining", verdict.remaining),
        ("ratelimit-reset", verdict.reset),
    )


def _with_headers(send: Send, verdict: Verdict) -> Send:
    headers = [(name.encode(), b"%d" % value) for name, value in _numbers(verdict)]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            # Build a new list: an answer that is sent repeatedly shares one list of headers.
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return sending


def _too_often(verdict: Verdict, credential: Credential | None) -> Problem:
    whose = "this address" if credential is None else "this key"
    return Problem(
        429,
        "rate-limited",
        "Too many requests",
        f"{whose} is allowed {verdict.limit} requests per minute; try again in {verdict.reset} s",
        headers={
            "retry-after": str(verdict.reset),
            **{name: str(value) for name, value in _numbers(verdict)},
        },
    )
