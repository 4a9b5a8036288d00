"""The complete report for programs, as CSV or JSON, written while it is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from app.jobs.processing import Row
from app.reports.document import COLUMNS, Report
from app.threads import alone

# Spreadsheets read a cell that begins with one of these as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

# Up to this many rows take less than half a millisecond to write.
_FEW = 50


def neutral(value: Any) -> Any:
    """Return a value that no spreadsheet executes: prefix text that looks like a formula with '."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value


def _lines(lines: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([neutral(cell) for cell in line] for line in lines)
    return text.getvalue().encode()


async def as_csv(report: Report, parts: AsyncIterator[list[Row]]) -> AsyncIterator[bytes]:
    """Yield one table: first lines of section `summary`, then one line `row` per entry."""
    columns = ("section", "part", "name", "value", *COLUMNS)
    blank = [""] * len(COLUMNS)
    summary = (("summary", *fact, *blank) for fact in report.facts())
    yield _lines([columns, *summary])
    async for part in parts:
        yield await _written(_csv_rows, part)


async def as_json(report: Report, parts: AsyncIterator[list[Row]]) -> AsyncIterator[bytes]:
    """Yield one object: `job`, the result of the job, and `rows`, a list of objects."""
    summary = {name: value for name, value in report.result.items() if name != "sample"}
    head = json.dumps({"job": report.job, **summary}, ensure_ascii=True)
    yield f'{head[:-1]}, "rows": ['.encode("ascii")
    between = b""
    async for part in parts:
        yield between + await _written(_objects, part)
        between = b","
    yield b"\n]}\n"


async def _written(write: Callable[[list[Row]], bytes], part: list[Row]) -> bytes:
    """Return a part as text; only a large one is worth the cost of a thread."""
    return write(part) if len(part) <= _FEW else await alone("report-part", lambda: write(part))


def _csv_rows(part: list[Row]) -> bytes:
    return _lines(("row", "", "", "", *row) for row in part)


def _objects(part: list[Row]) -> bytes:
    objects = (json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in part)
    return ",".join(f"\n{one}" for one in objects).encode("ascii")
