"""Cache of rendered reports, and the layout of those for people."""

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

#: Job, when it ended (nothing of it changes after that), and form.
Key = tuple[uuid.UUID, dt.datetime, str]
_MOST_BYTES = 8_388_608
# What is passed on in pieces is kept if all of it is this small: larger ones are for one reader.
_SMALL_BYTES = 262_144


class Renderer:
    """The renderer of one process. Laying out a document takes a second of one core at most.

    So there is one at a time, once for all who ask for the same; the others wait, requests for
    something else do not. What was rendered is kept within `most_bytes`, the least recently used
    goes first. Whether the job is still there and who may see it is the caller's question.
    """

    def __init__(self, database: Database, most_bytes: int = _MOST_BYTES) -> None:
        self._database = database
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._flights = SingleFlight[Key, bytes]()
        self._lane = Lane("report", 1)

    async def body(self, form: str, row: DictRow) -> bytes:
        """The report of a job that succeeded, from its row and result, as HTML or PDF."""
        key = _key(form, row)
        return self.kept(form, row) or await self._flights.run(key, lambda: self._render(key, row))

    def kept(self, form: str, row: DictRow) -> bytes | None:
        """A report in whatever form, if it is kept."""
        key = _key(form, row)
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    async def keeping(
        self, form: str, row: DictRow, pieces: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The pieces of a report as they come; a small one that was read to its end is kept."""
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
    from app.reports import pdf  # noqa: PLC0415 - a large library, for few requests

    return pdf.render, pdf.MOST_ROWS
