"""List jobs page by page, newest first: each page starts after the last job of the previous one.

A cursor is a position in the order (creation time, id), not a number of rows to skip. So all pages
cost the same, and new jobs do not shift later pages.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import DictRow

from app.db.pool import Database
from app.jobs.repository import COLUMNS

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_FORM = struct.Struct(">q16s")
#: The form of a cursor: any such text is a position, with a time between 1970 and 2112.
CURSOR = "^AA[A-Za-z0-9_-]{30}$"
#: The error message for any other text.
NO_CURSOR = "is no cursor that this service gave"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A job's position in the order of the list, after which the next page starts."""

    created_at: dt.datetime
    id: uuid.UUID

    def text(self) -> str:
        """Return the position as the text that clients send back."""
        micros = (self.created_at - _EPOCH) // _MICROSECOND
        return base64.urlsafe_b64encode(_FORM.pack(micros, self.id.bytes)).decode("ascii")

    @classmethod
    def of(cls, text: str) -> Cursor:
        """Read a cursor; raise ValueError for a text that `text` did not write."""
        try:
            raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
            micros, identity = _FORM.unpack(raw)
            found = cls(_EPOCH + micros * _MICROSECOND, uuid.UUID(bytes=identity))
        except (UnicodeEncodeError, binascii.Error, struct.error, OverflowError) as error:
            raise ValueError(NO_CURSOR) from error
        # Python also accepts the second alphabet of base64; reject it.
        if found.text() != text:
            raise ValueError(NO_CURSOR)
        return found


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs to list; None and empty values do not filter."""

    client: str | None
    states: Sequence[str] = ()
    source_types: Sequence[str] = ()
    created_from: dt.datetime | None = None
    created_before: dt.datetime | None = None


async def page(
    database: Database, selection: Selection, cursor: Cursor | None, limit: int
) -> tuple[list[DictRow], Cursor | None]:
    """Return up to `limit` jobs after a cursor, and the cursor of the next page or None."""
    conditions: list[tuple[str, Any]] = []
    if selection.client is not None:
        conditions.append(("client = %s", selection.client))
    if selection.states:
        conditions.append(("state = ANY(%s)", list(selection.states)))
    if selection.source_types:
        conditions.append(("source_type = ANY(%s)", list(selection.source_types)))
    if selection.created_from is not None:
        conditions.append(("created_at >= %s", selection.created_from))
    if selection.created_before is not None:
        conditions.append(("created_at < %s", selection.created_before))
    parameters = [value for _condition, value in conditions]
    where = [condition for condition, _value in conditions]
    if cursor is not None:
        where.append("(created_at, id) < (%s, %s)")
        parameters += [cursor.created_at, cursor.id]
    rows = await database.fetch_all(
        f"""SELECT {COLUMNS} FROM jobs WHERE {" AND ".join(where) or "true"}
            ORDER BY created_at DESC, id DESC LIMIT %s""",  # noqa: S608 - constants
        *parameters,
        limit + 1,
    )
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], Cursor(last["created_at"], last["id"])
