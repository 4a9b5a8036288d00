"""A report's content, the same whatever form it is given."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from psycopg.rows import DictRow

from app.db.pool import Database
from app.jobs import repository
from app.jobs.processing import Row

# The columns of a row, in the order of `Row`.
COLUMNS = (
    "record",
    "line",
    "id",
    "sentiment",
    "probability",
    "class",
    "class_probability",
    "error",
)


@dataclass(frozen=True, slots=True)
class Report:
    """One finished job: who it was, and what it found."""

    job: dict[str, Any]
    result: dict[str, Any]

    @property
    def title(self) -> str:
        """What a reader calls it."""
        return f"Report of job {self.job['job_id']}"

    @property
    def models(self) -> list[dict[str, Any]]:
        """The summary of each model that was asked, with what it looked at."""
        found = []
        for name in ("sentiment", "tabular"):
            summary = self.result.get(name)
            if summary is not None:
                fields = summary.get("fields") or [summary.get("field")]
                found.append({"kind": name, "looked_at": ", ".join(map(str, fields)), **summary})
        return found

    def facts(self) -> list[tuple[str, str, Any]]:
        """Everything but the rows as (part, name, value), in reading order."""
        facts = [("job", name, value) for name, value in self.job.items()]
        facts += [("source", name, value) for name, value in self.result["source"].items()]
        records = self.result["records"]
        facts += [("records", name, records[name]) for name in _TOTALS]
        facts += [("errors", name, n) for name, n in self.result["errors"]["reasons"].items()]
        for model in self.models:
            kind = model["kind"]
            facts += [
                (kind, name, model[name])
                for name in ("model", "version", "looked_at", "classified", "mean_probability")
            ]
            # Of texts only, and not of jobs that an older release ran.
            facts += [(kind, name, model[name]) for name in COVERAGE if name in model]
            facts += [(f"{kind} labels", label, n) for label, n in model["counts"].items()]
            facts += [(f"{kind} confidence", band, n) for band, n in model["confidence"].items()]
        return facts


#: How much of the texts the model knows: the mean share of words, and texts without any.
COVERAGE = ("mean_coverage", "no_known_word")
_TOTALS = ("collected", "processed", "rejected")


def build(row: DictRow, result: dict[str, Any]) -> Report:
    """The report of a job's row and result; nothing in it depends on when it is asked for."""
    job = {
        "job_id": str(row["id"]),
        "source_type": row["source_type"],
        "attempts": row["attempts"],
        **{name: _moment(row[name]) for name in ("created_at", "started_at", "finished_at")},
    }
    return Report(job, result)


def _moment(moment: dt.datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def rows(database: Database, row: DictRow) -> AsyncIterator[list[Row]]:
    """The job's rows, a part at a time."""
    part, more = 0, True
    while more:
        found, more = await repository.get_rows(database, row["id"], part)
        yield [Row(*values) for values in found]
        part += 1


async def first_rows(database: Database, row: DictRow, most: int) -> list[Row]:
    """As many rows as a report for people shows."""
    found: list[Row] = []
    async for part in rows(database, row):
        found += part
        if len(found) >= most:
            break
    return found[:most]
