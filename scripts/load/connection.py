"""Keep-alive connections without retries, because a retry would hide a lost request."""

from __future__ import annotations

import asyncio
import math
import select
import ssl
from collections.abc import Sequence
from typing import cast

from scripts.load.wire import Answer, AnswerError, Parser


class Connection(asyncio.Protocol):
    """One connection, one request at a time.

    Attributes:
        opened: When it was there, on the event loop's clock, in seconds.
        served: Requests that were answered on it.
        lost: Done when the connection is closed.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.opened = 0.0
        self.served = 0
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[Answer] | None = None
        self._parser = Parser()
        self._usable = True
        self._until = math.inf

    # ------------------------------------------------------------------ for the client
    def reusable(self) -> bool:
        """Return whether another request may be sent: the connection is not known to be closed.

        As HTTP clients do, this asks the kernel, which also knows of data that the event loop has
        not read yet. Data still on the network cannot be known. The server must avoid that race,
        which is what this program tests.
        """
        return self._usable and self._loop.time() < self._until and not self._readable()

    async def exchange(
        self, request: bytes, parts: Sequence[bytes] = (), *, pause: float = 0
    ) -> Answer:
        """Send one request and return its answer.

        Args:
            request: Head and body, or what of them is sent at once.
            parts: The rest of the body.
            pause: Seconds to wait before each of the parts.

        Raises:
            AnswerError: The connection ended without a whole answer, or the answer is none.
        """
        if not self._usable:
            raise AnswerError("connection closed before the request")
        self._parser = Parser()
        self._waiter = waiter = self._loop.create_future()
        self._transport.write(request)
        for part in parts:
            await asyncio.wait([waiter], timeout=pause)
            if waiter.done():
                # The answer or the loss came before the whole request was sent; do not send the
                # rest.
                self._usable = False
                break
            self._transport.write(part)
        answer: Answer = await waiter
        self.served += 1
        if not answer.keep:
            self._usable = False
        if answer.keep_seconds is not None:
            self._until = self._loop.time() + answer.keep_seconds
        return answer

    def close(self) -> None:
        """Close the connection in order."""
        self._usable = False
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection, with any request in progress."""
        self._usable = False
        self._transport.abort()

    # ------------------------------------------------------------------ for the event loop
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Handle an open connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        self.opened = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Handle bytes of an answer, or unexpected bytes."""
        if self._waiter is None or self._waiter.done():
            self.close()
            return
        try:
            answer = self._parser.feed(data)
        except AnswerError as error:
            self._fail(str(error))
            return
        if answer is not None:
            self._waiter.set_result(answer)

    def eof_received(self) -> None:
        """Handle the end of the data; the transport closes itself."""
        self._end("closed")

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._end("closed" if exc is None else f"lost ({type(exc).__name__}: {exc})")
        if not self.lost.done():
            self.lost.set_result(None)

    def _end(self, how: str) -> None:
        self._usable = False
        if self._waiter is None or self._waiter.done():
            return
        if (answer := self._parser.end()) is not None:
            self._waiter.set_result(answer)
        elif self._parser.received:
            self._fail(f"connection {how} after {self._parser.received} bytes of an answer")
        else:
            self._fail(f"connection {how} before an answer")

    def _fail(self, text: str) -> None:
        self._usable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(AnswerError(text))

    def _readable(self) -> bool:
        """Return whether anything, or an end, has arrived on the idle connection."""
        descriptor = self._socket.fileno()
        if descriptor < 0:  # under TLS the socket is closed a moment before this object hears of it
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))


class Client:
    """One client: keeps its idle connections, opens another when it has none."""

    def __init__(
        self, address: tuple[str, int], *, context: ssl.SSLContext | None, name: str, far: bool
    ) -> None:
        self.far = far
        self._address = address
        self._context = context
        self._name = name if context is not None else None
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()

    async def connection(self) -> Connection:
        """Return the connection that became idle last, or a new one.

        Raises:
            OSError: No connection can be opened.
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable():
                return connection
            connection.close()
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, *self._address, ssl=self._context, server_hostname=self._name
        )
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, if it may carry one."""
        self._idle = [other for other in self._idle if not other.lost.done()]
        if connection.reusable():
            self._idle.append(connection)
        else:
            connection.close()

    async def close(self, *, patience: float = 2) -> None:
        """Close every connection; drop those that are not gone after ``patience`` seconds."""
        for connection in tuple(self._open):
            connection.close()
        if waiting := [connection.lost for connection in self._open]:
            await asyncio.wait(waiting, timeout=patience)
        for connection in tuple(self._open):
            connection.abort()
