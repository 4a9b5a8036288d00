"""The outermost ASGI layer around the application.

It gives a request its id and time limit, counts and logs it once, and turns unhandled errors into
a problem. It is one pure ASGI layer, because each `BaseHTTPMiddleware` costs some 200 µs per
request.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.context import RequestContext, context_of, header
from app.http.problems import Problem
from app.http.routes import RouteTable
from app.observability import metrics
from app.observability.access import AccessLog
from app.observability.logging import get_logger

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_LIVENESS = frozenset({"/health", "/healthz", "/health/live"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMiddleware:
    """Adds request id, timeout, timing, metrics, access log and the last error handler."""

    def __init__(self, app: ASGIApp, *, routes: RouteTable, timeout_seconds: float) -> None:
        self._app = app
        self._routes = routes
        self._timeout = timeout_seconds
        self._log = get_logger("app.access")
        self._access = AccessLog()
        self._in_flight = _InFlight()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; pass other kinds of connections through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = self._request_id(scope)
        context = context_of(scope)
        context.request_id = request_id
        endpoint = context.endpoint = self._routes.template(scope["path"])
        answer = _Answer(send, request_id)
        inner = scope
        if scope["method"] == "HEAD":
            # Handle HEAD as GET, for the same headers. The server knows that it must not send the
            # body.
            inner = {**scope, "method": "GET"}
            answer.headers_only = True
        tokens = structlog.contextvars.bind_contextvars(request_id=request_id)
        self._in_flight.change(1)
        error: BaseException | None = None
        # Liveness waits for nothing, so it cannot time out.
        limit = asyncio.timeout(None if endpoint in _LIVENESS else self._timeout)
        try:
            async with limit:
                answer.moved = lambda: limit.reschedule(self._later(limit))
                await self._app(inner, receive, answer.send)
        except Exception as caught:
            if limit.expired():
                await self._answer_late(scope, receive, answer)
            else:
                error = caught
                await self._answer_error(caught, scope, receive, answer)
        finally:
            self._in_flight.change(-1)
            self._account(scope, context, answer.status, time.perf_counter() - started, error)
            structlog.contextvars.reset_contextvars(**tokens)

    def _later(self, limit: asyncio.Timeout) -> float | None:
        """Return the deadline for the next part of an answer; only the parts are limited."""
        if limit.when() is None:
            return None
        return asyncio.get_running_loop().time() + self._timeout

    @staticmethod
    def _request_id(scope: Scope) -> str:
        given = header(scope, b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return os.urandom(16).hex()

    async def _answer_late(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Answer a timeout: 408 while the client is still sending its body, else 504."""
        problem = Problem(
            504,
            "timeout",
            "The answer took too long",
            f"there was no answer within {self._timeout:g} s; the request may still take effect",
            headers={"retry-after": "5"},
        )
        if context_of(scope).uploading:
            problem = Problem(
                408,
                "upload-timeout",
                "The body came too slowly",
                f"it was not complete within {self._timeout:g} s",
                headers={"connection": "close"},
            )
        metrics.REFUSED.labels(problem.slug).inc()
        context_of(scope).error = problem.slug
        if answer.started:
            # The answer is incomplete: raise, so that the server closes the connection and clients
            # notice.
            answer.status = problem.status
            return
        await problem.response(scope["path"])(scope, receive, answer.send)

    async def _answer_error(
        self, error: Exception, scope: Scope, receive: Receive, answer: _Answer
    ) -> None:
        if answer.started:
            return
        context_of(scope).error = type(error).__name__
        problem = Problem(
            500,
            "internal",
            "The service failed",
            "The error was logged; give the operator the request id.",
        )
        await problem.response(scope["path"])(scope, receive, answer.send)

    def _account(
        self,
        scope: Scope,
        context: RequestContext,
        status: int,
        seconds: float,
        error: BaseException | None,
    ) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        counter, histogram = metrics.request_series(method, context.endpoint, status)
        counter.inc()
        histogram.observe(seconds)
        if status >= 500 or error is not None:
            kind = context.error or (type(error).__name__ if error else "unknown")
            metrics.ERRORS.labels(context.endpoint, kind).inc()
        fields: dict[str, Any] = {
            "method": method,
            "route": context.endpoint,
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "client": context.client,
            "peer": (scope.get("client") or ("",))[0],
        }
        if error is None and status < 500:
            self._access.write(request_id=context.request_id, **fields)
        elif error is not None:
            self._log.error("request failed", exc_info=error, **fields)
        else:
            self._log.warning("request", **fields)


class _InFlight:
    """The number of requests in progress; the metric is set once per turn of the event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._written = True

    def change(self, by: int) -> None:
        """Add `by` (1 or -1) to the number."""
        self._count += by
        if self._written:
            self._written = False
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._written = True
        metrics.IN_FLIGHT.set(self._count)


class _Answer:
    """Passes an answer on and records its start and its status."""

    __slots__ = ("_header", "_send", "headers_only", "moved", "started", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._header = (b"x-request-id", request_id.encode("ascii"))
        self.started = False
        self.status = 500
        self.headers_only = False
        self.moved: Callable[[], None] | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            # Build a new list: an answer that is sent repeatedly shares one list of headers.
            message = {**message, "headers": [*message["headers"], self._header]}
        elif self.headers_only and "body" in message:
            message = {**message, "body": b""}
        await self._send(message)
        if self.moved is not None and message.get("more_body"):
            self.moved()
