"""List and requeue dead jobs.

This is a command for the operator, not an endpoint: the site must first fix the cause (a source
that is down, a worker without memory). A client that only wants another attempt sends a new
request.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from app.db.pool import conninfo
from app.observability.logging import describe_exception, get_logger
from app.settings import Settings

log = get_logger("app.jobs.dead")


class DeadJobsError(Exception):
    """The command failed; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Which:
    """A selection of dead jobs: by id, by kind of source, or all."""

    ids: Sequence[uuid.UUID] = ()
    source_type: str | None = None

    def condition(self) -> tuple[str, list[Any]]:
        """Return an SQL condition on dead jobs and its parameters."""
        if self.ids:
            return "state = 'dead' AND id = ANY(%s)", [list(self.ids)]
        if self.source_type is not None:
            return "state = 'dead' AND source_type = %s", [self.source_type]
        return "state = 'dead'", []


def _connect(settings: Settings) -> psycopg.Connection[dict[str, Any]]:
    return psycopg.connect(
        conninfo(settings, application="airlift-jobs", options="-c lock_timeout=5s"),
        row_factory=dict_row,
    )


def show(settings: Settings, limit: int) -> None:
    """Print dead jobs as JSON, one per line, the latest first."""
    try:
        with _connect(settings) as connection:
            rows = connection.execute(
                """SELECT id AS job_id, client, source_type, attempts, created_at, finished_at,
                       error, request_id
                   FROM jobs WHERE state = 'dead' ORDER BY finished_at DESC, id LIMIT %s""",
                (limit,),
            ).fetchall()
    except psycopg.Error as error:
        raise DeadJobsError(f"Postgres: {describe_exception(error)}") from error
    for row in rows:
        print(json.dumps(row, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def requeue(settings: Settings, which: Which) -> int:
    """Requeue dead jobs with all their attempts and return how many.

    Raise `DeadJobsError` for an id that is not a dead job; then no job is requeued.
    """
    condition, parameters = which.condition()
    try:
        with _connect(settings) as connection:
            rows = connection.execute(
                f"""UPDATE jobs SET state = 'queued', attempts = 0, run_after = now(),
                        finished_at = NULL, updated_at = now()
                    WHERE {condition} RETURNING id, source_type""",  # noqa: S608 - constants
                parameters,
            ).fetchall()
            if missing := set(which.ids) - {row["id"] for row in rows}:
                names = ", ".join(sorted(str(job) for job in missing))
                connection.rollback()
                raise DeadJobsError(f"not among the dead jobs, so no job was requeued: {names}")
    except psycopg.Error as error:
        raise DeadJobsError(f"Postgres: {describe_exception(error)}") from error
    for row in rows:
        log.info("job requeued", job_id=str(row["id"]), source_type=row["source_type"])
    log.info("dead jobs requeued", changed=bool(rows), count=len(rows))
    return len(rows)
