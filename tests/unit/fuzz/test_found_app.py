"""Regressions from fuzzing: the service, each with its smallest input."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.jobs.listing import Cursor
from app.main import create_app
from app.settings import Settings


def ask(query: bytes) -> int:
    """Return the status of a GET with these query bytes, passed as the connection does."""
    app: Any = create_app(Settings(log_level="critical"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/items",
        "raw_path": b"/items",
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"x")],
        "client": ("192.0.2.9", 1),
        "server": ("192.0.2.1", 8000),
        "state": {},
    }
    seen: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        seen.append(message.get("status", 0))

    asyncio.run(app(scope, receive, send))
    return seen[0]


@pytest.mark.parametrize("query", [b"limit=x\xff", b"limit=0&\xc3(", b"limit=%ff"])
def test_bytes_in_a_query_that_are_no_utf_8_are_the_clients_error(query: bytes) -> None:
    assert ask(query) == 422


def test_such_bytes_are_no_error_of_ours_wherever_they_stand() -> None:
    """The service is asked without a database, so 503 is allowed."""
    assert ask(b"limit=5&after=1&\xff") in {422, 503}


@pytest.mark.parametrize("char", "+/")
def test_a_cursor_has_one_form(char: str) -> None:
    """Python's decoder also accepts base64's standard alphabet, which a cursor does not use."""
    good = Cursor.of("AA" + "A" * 30).text()
    with pytest.raises(ValueError, match="cursor"):
        Cursor.of(good[:-1] + char)
