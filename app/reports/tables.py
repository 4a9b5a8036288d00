"""The report for programs: CSV and JSON, whole, written as it is read."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from app.jobs.processing import Row
from app.reports.document import COLUMNS, Report

# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def neutral(value: Any) -> Any:
    """A cell that no spreadsheet runs: text that looks like a formula gets a quote before it."""
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value


def _lines(lines: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([neutral(cell) for cell in line] for line in lines)
    return text.getvalue().encode()


async def as_csv(report: Report, parts: AsyncIterator[list[Row]]) -> AsyncIterator[bytes]:
    """One table: lines of the section `summary` first, then one of `row` for each entry."""
    columns = ("section", "part", "name", "value", *COLUMNS)
    blank = [""] * len(COLUMNS)
    summary = (("summary", *fact, *blank) for fact in report.facts())
    yield _lines([columns, *summary])
    async for part in parts:
        yield await asyncio.to_thread(_lines, (("row", "", "", "", *row) for row in part))


async def as_json(report: Report, parts: AsyncIterator[list[Row]]) -> AsyncIterator[bytes]:
    """One object: `job`, the job's result, and `rows`, a list of objects."""
    summary = {name: value for name, value in report.result.items() if name != "sample"}
    head = json.dumps({"job": report.job, **summary}, ensure_ascii=True)
    yield f'{head[:-1]}, "rows": ['.encode("ascii")
    between = ""
    async for part in parts:
        yield (between + await asyncio.to_thread(_objects, part)).encode("ascii")
        between = ","
    yield b"\n]}\n"


def _objects(part: list[Row]) -> str:
    return ",".join("\n" + json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in part)
