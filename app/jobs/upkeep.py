"""The sweeper: requeues jobs of unresponsive workers, and deletes expired data.

Each worker runs one. They do not block each other: each skips the rows that another one holds. Only
the clock of Postgres counts.
"""

from __future__ import annotations

import time

from psycopg.rows import DictRow

from app import failpoints
from app.db.pool import Database
from app.jobs.watch import QueueWatch
from app.observability import metrics
from app.observability.logging import get_logger
from app.settings import Settings

log = get_logger("app.sweeper")
_BATCH = 500
_BATCHES = 20


async def take_back_expired(
    database: Database, backoff_base: float, backoff_cap: float
) -> list[DictRow]:
    """End attempts whose lease expired: requeue the jobs, or mark them dead."""
    return await database.fetch_all(
        """WITH silent AS MATERIALIZED (
               SELECT id FROM jobs WHERE state = 'running' AND lease_expires_at < now()
               ORDER BY lease_expires_at FOR UPDATE SKIP LOCKED LIMIT 100)
           UPDATE jobs SET
               state = CASE WHEN attempts >= max_attempts THEN 'dead' ELSE 'queued' END,
               finished_at = CASE WHEN attempts >= max_attempts THEN now() END,
               run_after = now() + make_interval(
                   secs => random() * least(%s, %s * 2 ^ least(attempts, 20))),
               error = jsonb_build_object('code', 'worker-lost',
                   'message', 'the worker stopped answering while it ran the job'),
               lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_expires_at = NULL,
               updated_at = now()
           FROM silent WHERE jobs.id = silent.id
           RETURNING jobs.id, source_type, state, attempts, request_id""",
        backoff_cap,
        backoff_base,
    )


async def forget_keys(database: Database, hours: float) -> int:
    """Delete a batch of idempotency keys older than `hours`; return the number."""
    return await database.execute(
        """WITH old AS MATERIALIZED (
               SELECT client, key FROM idempotency_keys
               WHERE created_at < now() - make_interval(secs => %s)
               ORDER BY created_at FOR UPDATE SKIP LOCKED LIMIT %s)
           DELETE FROM idempotency_keys AS keys USING old
           WHERE keys.client = old.client AND keys.key = old.key""",
        hours * 3600,
        _BATCH,
    )


async def forget_jobs(database: Database, days: float) -> int:
    """Delete a batch of jobs that finished more than `days` ago, with results and keys."""
    return await database.execute(
        """WITH old AS MATERIALIZED (
               SELECT id FROM jobs WHERE finished_at < now() - make_interval(secs => %s)
               ORDER BY finished_at FOR UPDATE SKIP LOCKED LIMIT %s)
           DELETE FROM jobs USING old WHERE jobs.id = old.id""",
        days * 86400,
        _BATCH,
    )


class Sweeper:
    """The periodic upkeep of a worker."""

    def __init__(self, settings: Settings, database: Database, queue: QueueWatch) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self._forget_at = 0.0
        self.interval = min(5.0, max(0.25, settings.job_lease_seconds / 3))

    async def sweep(self) -> None:
        """Run one round; raise `DatabaseUnavailableError` while Postgres is not available."""
        await self._queue.look()
        failpoints.reached("sweep.before")
        settings = self._settings
        rows = await take_back_expired(
            self._database, settings.job_backoff_base_seconds, settings.job_backoff_cap_seconds
        )
        failpoints.reached("sweep.after")
        for row in rows:
            self._account(row)
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + (60 if await self._forget() else 0)

    @staticmethod
    def _account(row: DictRow) -> None:
        """Count and log on behalf of the lost worker, under the id of the job's request."""
        outcome = "dead" if row["state"] == "dead" else "retried"
        metrics.LEASES_LOST.inc()
        metrics.JOBS_FINISHED.labels(row["source_type"], outcome).inc()
        log.warning(
            "job requeued: its worker stopped renewing the lease",
            job_id=str(row["id"]),
            request_id=row["request_id"],
            state=row["state"],
            attempts=row["attempts"],
        )

    async def _forget(self) -> bool:
        """Delete expired data in small batches; return False if there is more."""
        failpoints.reached("forget.before")
        days, gone = self._settings.job_retention_days, 0
        for _ in range(_BATCHES):
            keys = await forget_keys(self._database, self._settings.idempotency_hours)
            jobs = await forget_jobs(self._database, days) if days else 0
            gone += jobs
            if max(keys, jobs) < _BATCH:
                break
        else:
            log.info("old jobs deleted, more to come", jobs=gone)
            return False
        failpoints.reached("forget.after")
        if gone:
            log.info("old jobs deleted", jobs=gone)
        return True
