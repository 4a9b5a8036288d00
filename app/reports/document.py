"""The content of a report, which is the same for all formats."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from psycopg.rows import DictRow

from app.db.pool import Database
from app.jobs import repository
from app.jobs.processing import Row

# The columns of a row, in the order of `Row`'s fields.
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
    """The metadata and the result of one finished job."""

    job: dict[str, Any]
    result: dict[str, Any]

    @property
    def title(self) -> str:
        """Return the title of the document."""
        return f"Report of job {self.job['job_id']}"

    @property
    def models(self) -> list[dict[str, Any]]:
        """Return the summary of each model that was used, with the fields that it read."""
        found = []
        for name in ("sentiment", "tabular"):
            summary = self.result.get(name)
            if summary is not None:
                fields = summary.get("fields") or [summary.get("field")]
                found.append({"kind": name, "looked_at": ", ".join(map(str, fields)), **summary})
        return found

    def facts(self) -> list[tuple[str, str, Any]]:
        """Return everything but the rows as (section, name, value), in reading order."""
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
            # Only texts have these, and only in jobs of this release or a newer one.
            facts += [(kind, name, model[name]) for name in COVERAGE if name in model]
            facts += [(f"{kind} labels", label, n) for label, n in model["counts"].items()]
            facts += [(f"{kind} confidence", band, n) for band, n in model["confidence"].items()]
        return facts


#: Known words in the texts: the mean share (0 to 1), and the number of texts without any.
COVERAGE = ("mean_coverage", "no_known_word")
_TOTALS = ("collected", "processed", "rejected")


def build(row: DictRow, result: dict[str, Any]) -> Report:
    """Return the report of a job's row and result, independent of the time of the request."""
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
    """Yield the job's rows, one stored part at a time."""
    part, more = 0, True
    while more:
        found, more = await repository.get_rows(database, row["id"], part)
        yield [Row(*values) for values in found]
        part += 1


async def first_rows(database: Database, row: DictRow, most: int) -> list[Row]:
    """Return up to `most` rows, for the reports that people read."""
    found: list[Row] = []
    async for part in rows(database, row):
        found += part
        if len(found) >= most:
            break
    return found[:most]
