"""Render reports for readers, and cache rendered reports."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

from psycopg.rows import DictRow

from app.db.pool import Database
from app.flight import SingleFlight
from app.jobs.processing import Row
from app.reports import document, page
from app.threads import Lane

#: Job, time of its end (a finished job does not change), and format.
Key = tuple[uuid.UUID, dt.datetime, str]
_MOST_BYTES = 8_388_608
# Cache a streamed report only up to this size: a larger one rarely has a second reader.
_SMALL_BYTES = 262_144


class Renderer:
    """The renderer of one process.

    The layout of a document takes up to a second of CPU time. Documents are therefore rendered one
    at a time, in a thread, and concurrent requests for the same document share one rendering. The
    cache holds up to `most_bytes`; the least recently used document is removed first. The caller
    checks that the job still exists and that the client is allowed to see it.
    """

    def __init__(self, database: Database, most_bytes: int = _MOST_BYTES) -> None:
        self._database = database
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._flights = SingleFlight[Key, bytes]()
        self._lane = Lane("report", 1)

    async def body(self, form: str, row: DictRow) -> bytes:
        """Return the report of a succeeded job as HTML or PDF, from its row with `result`."""
        key = _key(form, row)
        return self.kept(form, row) or await self._flights.run(key, lambda: self._render(key, row))

    def kept(self, form: str, row: DictRow) -> bytes | None:
        """Return a report of any format from the cache, or None."""
        key = _key(form, row)
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    async def keeping(
        self, form: str, row: DictRow, pieces: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Yield the pieces of a report; cache it if it is small and was read to its end."""
        seen: list[bytes] = []
        size = 0
        async for piece in pieces:
            size += len(piece)
            if size <= _SMALL_BYTES:
                seen.append(piece)
            yield piece
        if size <= _SMALL_BYTES:
            self._keep(_key(form, row), b"".join(seen))

    async def _render(self, key: Key, row: DictRow) -> bytes:
        render, most = _way(key[2])
        report = document.build(row, json.loads(row["result"]))
        rows = await document.first_rows(self._database, row, most)
        body = await self._lane.run(lambda: render(report, rows))
        self._keep(key, body)
        return body

    def _keep(self, key: Key, body: bytes) -> None:
        if len(body) > self._most or key in self._kept:
            return
        self._kept[key] = body
        self._bytes += len(body)
        while self._bytes > self._most:
            self._bytes -= len(self._kept.popitem(last=False)[1])


def _key(form: str, row: DictRow) -> Key:
    return row["id"], row["finished_at"], form


def _way(form: str) -> tuple[Callable[[document.Report, list[Row]], bytes], int]:
    if form == "html":
        return page.render, page.MOST_ROWS
    from app.reports import pdf  # noqa: PLC0415 - a large library that few requests need

    return pdf.render, pdf.MOST_ROWS
