"""The inner ASGI layer: checks the request, limits its body and the number of concurrent requests.

The body is read completely before the application gets the request. So one layer rejects bodies
that are too large, too slow or nested too deeply. A request takes a slot before its body is read,
because a partial body takes memory as long as it arrives. Each process has a limited number of
slots. A request that finds none waits for a moment and then gets a 503.
"""

from __future__ import annotations

import asyncio
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.auth import is_public
from app.http.context import context_of, header
from app.http.expected import Expected
from app.http.problems import FieldError, Problem, refuse
from app.observability import metrics
from app.settings import Settings

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def too_deep(body: bytes, most: int) -> bool:
    """Return whether JSON text is nested more than `most` arrays and objects deep.

    For nearly every body it is enough to count brackets. For the others, strings are removed and
    then the innermost pairs, one level per pass. So the time is limited by the allowed depth, not
    by the content of the body.
    """
    if body.count(b"[") + body.count(b"{") <= most:
        return False
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(most):
        without = brackets.replace(b"[]", b"")
        if len(without) == len(brackets):
            # Unbalanced brackets are not JSON. The parser reports that, unless they nest too
            # deeply.
            return brackets.count(b"[") > most
        brackets = without
    return b"[" in brackets


class Places:
    """The slots of this process for concurrent requests."""

    def __init__(self, most: int, wait_seconds: float) -> None:
        self._free = asyncio.Semaphore(most)
        self._seconds = wait_seconds
        self._waiting = 0
        self._most_waiting = most

    async def enter(self) -> None:
        """Take a slot; raise a 503 problem if none becomes free within the configured time."""
        if not self._free.locked():
            await self._free.acquire()
            return
        if self._waiting >= self._most_waiting:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1

    def leave(self) -> None:
        """Release the slot."""
        self._free.release()


class LimitsMiddleware:
    """Reads the body within its limits and passes a request on when a slot is free."""

    def __init__(self, app: ASGIApp, *, settings: Settings, expected: Expected) -> None:
        self._app = app
        self._expected = expected
        self._most_bytes = settings.max_body_bytes
        self._most_levels = settings.max_json_depth
        self._places = Places(settings.max_concurrent_requests, settings.concurrency_wait_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; probes, metrics and the documentation need no slot."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (refusal := self._expected.refusal(scope)) is not None:
            await refuse(refusal, scope, receive, send)
            return
        if is_public(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            self._check_announced(scope)
            await self._places.enter()
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        try:
            try:
                receive = await self._with_body(scope, receive)
            except Problem as problem:
                await _refuse(problem, scope, receive, send)
                return
            await self._app(scope, receive, send)
        finally:
            self._places.leave()

    def _check_announced(self, scope: Scope) -> None:
        announced = header(scope, b"content-length")
        if announced is not None and (
            not announced.isdigit() or len(announced) > 18 or int(announced) > self._most_bytes
        ):
            raise _too_large(self._most_bytes)

    async def _with_body(self, scope: Scope, receive: Receive) -> Receive:
        if header(scope, b"content-length") is None and header(scope, b"transfer-encoding") is None:
            return receive
        context_of(scope).uploading = True
        body = await self._read(receive)
        context_of(scope).uploading = False
        if too_deep(body, self._most_levels):
            raise Problem(
                400,
                "nested-too-deeply",
                "The body is nested too deeply",
                f"arrays and objects may be {self._most_levels} levels deep",
                errors=[FieldError(field="body", message="nested too deeply", code="json_depth")],
            )
        first: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def read() -> Message:
            nonlocal first
            if first is not None:
                message, first = first, None
                return message
            return await receive()

        return read

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "incomplete-body", "The body is not complete")
            part = message.get("body", b"")
            size += len(part)
            if size > self._most_bytes:
                raise _too_large(self._most_bytes)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    metrics.REFUSED.labels(problem.slug).inc()
    await refuse(problem, scope, receive, send)


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        "content-too-large",
        "The body is too large",
        f"the body is larger than {limit} bytes",
        # Do not read the rest of the body.
        headers={"connection": "close"},
        errors=[FieldError(field="body", message=f"{limit} bytes at most", code="too_large")],
    )


def _busy() -> Problem:
    return Problem(
        503,
        "busy",
        "Too many requests run at once",
        "try again in a moment",
        headers={"retry-after": "1"},
    )
