"""A TCP relay that simulates a distant target, for kernels that cannot delay packets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self, cast

#: The end of a direction: its sender has finished, or is gone without notice.
_Event = bytes | None | Exception


class _Way:
    """One direction, which delays bytes and keeps their order."""

    def __init__(self, delay: float, deliver: Callable[[_Event], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay = delay
        self._deliver = deliver
        self._queue: deque[tuple[float, _Event]] = deque()
        self._open = False
        self._waiting = False

    def put(self, event: _Event) -> None:
        self._queue.append((self._loop.time() + self._delay, event))
        self._wait()

    def open(self) -> None:
        """Deliver what has waited long enough, now that the other end is connected."""
        self._open = True
        self._wait()

    def _wait(self) -> None:
        # One timer for the whole queue: the event loop does not order timers of the same moment.
        if self._open and self._queue and not self._waiting:
            self._waiting = True
            self._loop.call_at(self._queue[0][0], self._run)

    def _run(self) -> None:
        self._waiting = False
        # At least one, because the loop's timers may come a clock tick early.
        self._deliver(self._queue.popleft()[1])
        while self._queue and self._queue[0][0] <= self._loop.time():
            self._deliver(self._queue.popleft()[1])
        self._wait()


class _Side(asyncio.Protocol):
    """One of a pair of connections; it passes what it receives to the other, with a delay."""

    def __init__(self, live: set[asyncio.Transport]) -> None:
        self.way: _Way
        self._live = live
        self._transport: asyncio.Transport | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._live.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self.way.put(data)

    def eof_received(self) -> bool:
        self.way.put(None)
        if self._ended and self._transport is not None:
            self._transport.close()
        self._ended = True
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._live.discard(self._transport)
        if exc is not None:
            self.way.put(exc)

    def deliver(self, event: _Event) -> None:
        """Repeat on this side's connection what happened to the other's."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if isinstance(event, bytes):
            # No flow control, because requests and answers have only a few kilobytes.
            transport.write(event)
        elif event is not None:
            transport.abort()
        elif self._ended:
            transport.close()
        else:
            self._ended = True
            transport.write_eof()


class _Near(_Side):
    """A client's connection; the other one is opened after the delay."""

    def __init__(self, target: tuple[str, int], delay: float, live: set[asyncio.Transport]) -> None:
        super().__init__(live)
        self._target = target
        self._delay = delay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._far = _Side(self._live)
        self.way = _Way(self._delay, self._far.deliver)
        self._far.way = _Way(self._delay, self.deliver)
        self._far.way.open()
        # Keep a reference, because the event loop drops a task without one.
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        await asyncio.sleep(self._delay)
        try:
            await asyncio.get_running_loop().create_connection(lambda: self._far, *self._target)
        except OSError as error:
            self._far.way.put(error)
        else:
            self.way.open()


class Relay:
    """Passes TCP connections on; all bytes, and the end of a connection, come ``delay`` later.

    Each direction of each connection is a queue of its own, first in, first out. A client's
    connection is accepted at once, so that a new connection is one way too early; the target sees
    it after ``delay``.

    Attributes:
        address: Host and port where it listens, once entered.
    """

    def __init__(self, target: tuple[str, int], *, delay: float) -> None:
        """Prepare a relay to ``target``, ``delay`` seconds away one way."""
        self._target = target
        self._delay = delay
        self._live: set[asyncio.Transport] = set()
        self.address = ("127.0.0.1", 0)

    async def __aenter__(self) -> Self:
        """Listen on a free port of this machine's loopback."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Near(self._target, self._delay, self._live), *self.address
        )
        self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no longer; let what is under way arrive, then drop what is still connected."""
        self._server.close()
        await asyncio.sleep(2 * self._delay)
        for transport in tuple(self._live):
            transport.abort()
        await self._server.wait_closed()
