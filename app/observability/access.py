"""Write the log line of each request on a fast path of its own.

The line has the same form as all others. Its fields are fixed and need no masking, so it is built
from parts that are JSON already. Lines of requests that end in the same turn of the event loop
share a write.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from functools import lru_cache

from structlog.contextvars import get_contextvars

# A pipe takes this many bytes in one piece, so lines of several processes never mix.
_ONE_PIECE = 4096
_quoted = lru_cache(maxsize=1024)(json.dumps)


class AccessLog:
    """Writes the request lines of one process, if the log level allows it."""

    def __init__(self) -> None:
        # The fields that `configure` has bound by now hold for the whole process.
        bound = "".join(f",{_quoted(k)}:{json.dumps(v)}" for k, v in get_contextvars().items())
        self._head = f'Z","level":"info","logger":"app.access","event":"request"{bound}'
        self._root = logging.getLogger()
        self._lines: list[str] = []

    def write(
        self,
        *,
        request_id: str,
        method: str,
        route: str,
        status: int,
        duration_ms: float,
        client: str | None,
        peer: str,
    ) -> None:
        """Queue the line of an answered request; `request_id` must need no JSON escapes."""
        if self._root.level > logging.INFO:
            return
        now = time.time()
        second = int(now)
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(
            f'{{"timestamp":"{_moment(second)}.{int((now - second) * 1e6):06d}{self._head}'
            f',"request_id":"{request_id}","method":"{method}","route":{_quoted(route)}'
            f',"status":{status},"duration_ms":{duration_ms}'
            f',"client":{_quoted(client)},"peer":{_quoted(peer)}}}\n'
        )

    def flush(self) -> None:
        """Write the queued lines."""
        lines, self._lines = self._lines, []
        piece = ""
        for line in lines:
            if piece and len(piece) + len(line) > _ONE_PIECE:
                _put(piece)
                piece = ""
            piece += line
        _put(piece)


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@lru_cache(maxsize=2)
def _moment(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
