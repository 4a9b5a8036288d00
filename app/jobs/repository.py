"""All SQL statements on jobs. Each is fenced: a worker that lost its lease changes nothing."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import DictRow

from app.db.pool import Connection, Database
from app.db.values import jsonb, ordered_json

# The version of `config` that this code writes, and the oldest and newest that it can run. A job
# of another version stays queued until a worker that knows it runs.
PAYLOAD_VERSION = 1
PAYLOAD_OLDEST = 1
#: The error code of internal errors, whose message is for the operator only.
INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker holds while it renews the lease."""

    id: uuid.UUID
    epoch: int
    client: str
    source_type: str
    config: dict[str, Any]
    attempts: int
    max_attempts: int
    request_id: str | None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to record."""

    id: uuid.UUID
    client: str
    source_type: str
    config: dict[str, Any]
    needs: str | None
    max_attempts: int
    request_id: str | None


# Due jobs per need that a claim reads: up to as many workers can claim at the same moment.
_HEADS = 32
# The index `jobs_due_by_need` is ordered by need, so any number of jobs that wait for another host
# is never read. "No need" is the empty string.
_DUE = """SELECT head.id, head.run_after
    FROM generate_series(%s::int, %s::int) AS version
    CROSS JOIN unnest(%s::text[]) AS need
    CROSS JOIN LATERAL (
        SELECT id, run_after FROM jobs
        WHERE state = 'queued' AND payload_version = version
          AND coalesce(needs, '') = need AND run_after <= now()
        ORDER BY run_after, id LIMIT %s) AS head"""


def _due(available: Sequence[str], most: int) -> tuple[Any, ...]:
    """Return the parameters of `_DUE`."""
    return PAYLOAD_OLDEST, PAYLOAD_VERSION, ["", *available], most


COLUMNS = """id, client, source_type, state, attempts, max_attempts, processed, total, error,
    created_at, started_at, finished_at, run_after"""


async def insert(connection: Connection, job: NewJob) -> None:
    """Record a job."""
    await connection.execute(
        """INSERT INTO jobs (id, client, source_type, payload_version, config, needs,
                             max_attempts, request_id)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            job.id,
            job.client,
            job.source_type,
            PAYLOAD_VERSION,
            jsonb(job.config),
            job.needs,
            job.max_attempts,
            job.request_id,
        ),
    )


async def remember_key(
    connection: Connection, client: str, key: str, fingerprint: bytes, job_id: uuid.UUID
) -> DictRow | None:
    """Bind an idempotency key to a job; return the earlier binding if there is one.

    Call it in the transaction that inserts the job. A concurrent request with the same key waits
    here until that transaction ends.
    """
    while True:
        cursor = await connection.execute(
            """INSERT INTO idempotency_keys (client, key, fingerprint, job_id)
               VALUES (%s, %s, %s, %s) ON CONFLICT (client, key) DO NOTHING""",
            (client, key, fingerprint, job_id),
        )
        if cursor.rowcount == 1:
            return None
        cursor = await connection.execute(
            """SELECT fingerprint, job_id, state FROM idempotency_keys
               JOIN jobs ON jobs.id = job_id WHERE idempotency_keys.client = %s AND key = %s""",
            (client, key),
        )
        # None: the sweeper deleted the key in between, so it can be bound now.
        if (row := await cursor.fetchone()) is not None:
            return row


async def get(database: Database, job_id: uuid.UUID, client: str | None) -> DictRow | None:
    """Return one job or None; with `client`, only a job of that client."""
    return await database.fetch_one(
        f"""SELECT {COLUMNS} FROM jobs
            WHERE id = %s AND (%s::text IS NULL OR client = %s)""",  # noqa: S608 - constants
        job_id,
        client,
        client,
    )


async def get_with_result(
    database: Database, job_id: uuid.UUID, client: str | None
) -> DictRow | None:
    """Return one job like `get`, with its `result` as JSON text or None."""
    return await database.fetch_one(
        f"""SELECT {COLUMNS},
                (SELECT result::text FROM job_results WHERE job_id = jobs.id) AS result
            FROM jobs WHERE id = %s AND (%s::text IS NULL OR client = %s)""",  # noqa: S608 - constants
        job_id,
        client,
        client,
    )


CLAIM = f"""WITH due AS MATERIALIZED ({_DUE} ORDER BY head.run_after, head.id)
    UPDATE jobs SET state = 'running', attempts = attempts + 1,
        lease_epoch = lease_epoch + 1, lease_owner = %s,
        lease_expires_at = now() + make_interval(secs => %s),
        started_at = coalesce(started_at, now()), processed = 0, total = NULL,
        updated_at = now()
    WHERE id = (
        SELECT jobs.id FROM due JOIN jobs ON jobs.id = due.id
        WHERE jobs.state = 'queued' AND jobs.run_after <= now()
        ORDER BY due.run_after, due.id
        FOR UPDATE OF jobs SKIP LOCKED LIMIT 1)
    RETURNING id, lease_epoch AS epoch, client, source_type, config, attempts,
        max_attempts, request_id"""  # noqa: S608 - constants


def claim_parameters(owner: str, lease_seconds: float, available: Sequence[str]) -> tuple[Any, ...]:
    """Return the parameters of `CLAIM`."""
    return *_due(available, _HEADS), owner, lease_seconds


async def claim(
    database: Database, *, owner: str, lease_seconds: float, available: Sequence[str]
) -> Claim | None:
    """Claim the job that is due longest and that this worker can run; None if there is none."""
    row = await database.fetch_one(CLAIM, *claim_parameters(owner, lease_seconds, available))
    return None if row is None else Claim(**row)


async def renew(
    database: Database, held: Claim, lease_seconds: float, processed: int, total: int | None
) -> bool:
    """Renew the lease and store the progress; return False if this worker lost it."""
    count = await database.execute(
        """UPDATE jobs SET lease_expires_at = now() + make_interval(secs => %s),
               processed = %s, total = %s, updated_at = now()
           WHERE id = %s AND lease_epoch = %s AND state = 'running'""",
        lease_seconds,
        processed,
        total,
        held.id,
        held.epoch,
    )
    return count == 1


async def succeed(
    database: Database, held: Claim, result: dict[str, Any], records: int, parts: Sequence[str]
) -> bool:
    """Store the result and the report's rows (`parts`: JSON lists of rows), and end the job.

    One transaction; return False if this worker lost it.
    """
    async with database.connection() as connection, connection.transaction():
        cursor = await connection.execute(
            """WITH done AS (
                   UPDATE jobs SET state = 'succeeded', finished_at = now(), updated_at = now(),
                       lease_owner = NULL, lease_expires_at = NULL, error = NULL,
                       processed = %s, total = %s
                   WHERE id = %s AND lease_epoch = %s AND state = 'running'
                   RETURNING id)
               INSERT INTO job_results (job_id, result)
               SELECT id, %s FROM done RETURNING job_id""",
            (records, records, held.id, held.epoch, ordered_json(result)),
        )
        if await cursor.fetchone() is None:
            return False
        await cursor.executemany(
            "INSERT INTO job_rows (job_id, part, rows) VALUES (%s, %s, %s::json)",
            [(held.id, number, part) for number, part in enumerate(parts)],
        )
    return True


async def get_rows(
    database: Database, job_id: uuid.UUID, part: int
) -> tuple[list[list[Any]], bool]:
    """Return a part of the rows of a job's report (from 0), and whether another part follows."""
    row = await database.fetch_one(
        """SELECT rows, EXISTS (SELECT FROM job_rows AS next WHERE next.job_id = job_rows.job_id
               AND next.part = job_rows.part + 1) AS more
           FROM job_rows WHERE job_id = %s AND part = %s""",
        job_id,
        part,
    )
    return ([], False) if row is None else (row["rows"], row["more"])


async def end(database: Database, held: Claim, state: str, error: dict[str, str]) -> bool:
    """End the job as `failed` or `dead`; return False if this worker lost it."""
    count = await database.execute(
        """UPDATE jobs SET state = %s, error = %s, finished_at = now(), updated_at = now(),
               lease_owner = NULL, lease_expires_at = NULL
           WHERE id = %s AND lease_epoch = %s AND state = 'running'""",
        state,
        jsonb(error),
        held.id,
        held.epoch,
    )
    return count == 1


async def retry(database: Database, held: Claim, delay: float, error: dict[str, str]) -> bool:
    """Requeue the job for a later attempt; return False if this worker lost it."""
    count = await database.execute(
        """UPDATE jobs SET state = 'queued', error = %s, updated_at = now(),
               run_after = now() + make_interval(secs => %s),
               lease_owner = NULL, lease_expires_at = NULL
           WHERE id = %s AND lease_epoch = %s AND state = 'running'""",
        jsonb(error),
        delay,
        held.id,
        held.epoch,
    )
    return count == 1


async def release(database: Database, held: Claim) -> bool:
    """Requeue a job that was not finished in time, without counting the attempt."""
    count = await database.execute(
        """UPDATE jobs SET state = 'queued', attempts = attempts - 1, updated_at = now(),
               lease_owner = NULL, lease_expires_at = NULL
           WHERE id = %s AND lease_epoch = %s AND state = 'running'""",
        held.id,
        held.epoch,
    )
    return count == 1


async def fate(database: Database, held: Claim) -> tuple[str, bool] | None:
    """Return a claimed job's state and whether no later claim took it; None if it is gone."""
    row = await database.fetch_one("SELECT state, lease_epoch FROM jobs WHERE id = %s", held.id)
    return None if row is None else (row["state"], row["lease_epoch"] == held.epoch)


async def cancel(database: Database, job_id: uuid.UUID, client: str | None) -> DictRow | None:
    """Cancel a queued or running job; return None if it is neither.

    The worker that runs it loses its lease: its next heartbeat fails, and its results are refused.
    """
    return await database.fetch_one(
        f"""UPDATE jobs SET state = 'cancelled', finished_at = now(), updated_at = now(),
               lease_owner = NULL, lease_expires_at = NULL
            WHERE id = %s AND (%s::text IS NULL OR client = %s)
              AND state IN ('queued', 'running')
            RETURNING {COLUMNS}""",  # noqa: S608 - constants
        job_id,
        client,
        client,
    )


DUE_SECONDS = f"SELECT extract(epoch FROM now() - min(run_after)) AS oldest FROM ({_DUE}) AS due"  # noqa: S608


def due_parameters(available: Sequence[str]) -> tuple[Any, ...]:
    """Return the parameters of `DUE_SECONDS`."""
    return _due(available, 1)


async def due_seconds(database: Database, available: Sequence[str]) -> float:
    """Return the wait in seconds of the longest due job that a worker with these needs can run."""
    row = await database.fetch_one(DUE_SECONDS, *due_parameters(available))
    return float(row["oldest"] or 0) if row is not None else 0.0


@dataclass(frozen=True, slots=True)
class QueueState:
    """The state of the queue for metrics."""

    queued: int
    running: int
    dead: int
    oldest_seconds: float


async def queue_state(database: Database) -> QueueState:
    """Count unfinished jobs; partial indexes serve all counts."""
    row = await database.fetch_one(
        """SELECT
               (SELECT count(*) FROM jobs WHERE state = 'queued') AS queued,
               (SELECT count(*) FROM jobs WHERE state = 'running') AS running,
               (SELECT count(*) FROM jobs WHERE state = 'dead') AS dead,
               (SELECT extract(epoch FROM now() - min(run_after)) FROM jobs
                WHERE state = 'queued' AND run_after <= now()) AS oldest"""
    )
    if row is None:
        return QueueState(0, 0, 0, 0.0)
    return QueueState(row["queued"], row["running"], row["dead"], float(row["oldest"] or 0))


def next_attempt(row: DictRow) -> dt.datetime | None:
    """Return when a job is tried again after a failed attempt, or None."""
    if row["state"] != "queued" or row["attempts"] == 0:
        return None
    moment: dt.datetime = row["run_after"]
    return moment
