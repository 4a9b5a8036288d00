"""The time limit of an answer applies to each piece, not to the whole."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from app.http.middleware import RequestMiddleware
from app.http.routes import RouteTable

LIMIT = 0.2


def run(pieces: int, pause: float) -> list[Message]:
    """Return the messages of an application that pauses before each piece."""
    sent: list[Message] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(pieces):
            await asyncio.sleep(pause)
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    middleware = RequestMiddleware(app, routes=RouteTable([]), timeout_seconds=LIMIT)
    scope: Scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    asyncio.run(middleware(scope, receive, send))
    return sent


@pytest.mark.parametrize(("pieces", "pause", "whole"), [(12, LIMIT / 4, True), (2, 60, False)])
def test_an_answer_is_cut_when_it_stands_still_and_not_when_it_is_long(
    pieces: int, pause: float, whole: bool
) -> None:
    sent = run(pieces, pause)
    assert (sent[-1].get("more_body") is False) is whole
