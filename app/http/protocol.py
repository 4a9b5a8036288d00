"""HTTP/1.1 on the service's port: uvicorn's protocol with limits on everything but the body.

By default uvicorn waits without a limit for a complete head, and its parser keeps the part that it
has. The limits here are:

- A head has a maximum size (`MAX_HEAD_BYTES`, else 431) and time (`HEAD_TIMEOUT_SECONDS`, else
  408): the first of a connection and each that follows.
- Data between the parts of a body (chunk sizes and extensions, trailers) has the same maximum
  size. Trailers are dropped: they come after the request was accepted.
- A body that still arrives after its answer has the time of a head. Before that, the application
  limits its time (`app.http.middleware`) and size (`app.http.limits`).

One counter covers all sizes: the bytes read since the parser's last event.
"""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.problems import Problem
from app.observability import metrics
from app.settings import get_settings

# A refused client may still be sending. If the connection is closed with unread data, TCP resets
# it and the client loses the answer.
_LINGER_SECONDS = 2.0


class Protocol(HttpToolsProtocol):
    """One connection.

    A worker that accepted a connection yields once, so that another worker can accept the next one.
    Connections stay open, so a worker with most of them would keep most of the load. Of 100
    simultaneous connections, the busier of two workers got 67 without this and 60 with it (mean of
    36 runs on two cores).
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        settings = get_settings()
        self._most = settings.max_head_bytes
        self._seconds = settings.head_timeout_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = True
        self._refused = False
        # Bytes of the read in progress, and bytes since the parser's last event.
        self._reading = 0
        self._unused = 0

    def connection_made(self, transport: Any) -> None:
        """Start the timer of the first head."""
        super().connection_made(transport)
        self._wait()
        os.sched_yield()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop all timers."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data; refuse the request if too much came without an event of the parser."""
        if self._refused:
            return
        self._reading = len(data)
        super().data_received(data)
        self._unused += self._reading
        if self._unused > self._most:
            self._refuse(_too_large(self._most))
        elif self._deadline is None and self.timeout_keep_alive_task is None and self._idle():
            self._wait()

    def on_headers_complete(self) -> None:
        """Accept the request if its complete head is within the size limit."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._most:
            self._refuse(_too_large(self._most))
            raise ValueError  # stops the parser
        super().on_headers_complete()
        self._in_head = False
        self._used()
        self._wait_no_more()
        # The request keeps its own list; headers from here on are trailers.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Pass on a part of a body and reset the counter."""
        self._used()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request and start the timer of the next head."""
        self._in_head = True
        self._used()
        super().on_message_complete()
        if self._idle():
            # This ended a body whose answer was sent before; nothing is pending now.
            self._wait_no_more()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:
        """Answer 400 to anything but HTTP, in the form of all other errors."""
        detail = "its head cannot be read; check that the client uses HTTP and the right port"
        self._refuse(Problem(400, "invalid-http", "The request is not HTTP", detail))

    def _used(self) -> None:
        # The read in progress is added to the counter afterwards. For the next head it counts as 0.
        self._unused = -self._reading

    def _idle(self) -> bool:
        """Return whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self._seconds, self._late)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self._in_head and self._unused > 0:
            self._refuse(_too_slow(self._seconds))
        else:
            # Either there was no request, or it was answered before its body was complete.
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        if self._refused:
            return
        self._refused = True
        self._wait_no_more()
        metrics.REFUSED.labels(problem.slug).inc()
        cycle = self.cycle
        in_turn = (
            self._idle()
            if self._in_head
            else not (self.pipeline or cycle.response_started or cycle.disconnected)
        )
        if not in_turn or self.transport.is_closing():
            # The client would take it for a part of another answer.
            self.transport.close()
            return
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self._unset_keepalive_if_required()
        answer = problem.response()
        status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}".encode()
        head = [b": ".join(header) for header in answer.raw_headers]
        lines = [status, *head, b"connection: close", b"", bytes(answer.body)]
        self.transport.write(b"\r\n".join(lines))
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


def _too_large(limit: int) -> Problem:
    return Problem(
        431,
        "head-too-large",
        "The head of the request is too large",
        f"its first line and its headers are larger than {limit} bytes",
    )


def _too_slow(seconds: float) -> Problem:
    return Problem(
        408,
        "head-timeout",
        "The head of the request came too slowly",
        f"it was not complete within {seconds:g} s",
    )
