"""Accept jobs and return their status."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import DictRow

from app import failpoints
from app.db.pool import Connection, Database
from app.http.problems import Problem, field_problem
from app.jobs import listing, repository
from app.jobs.hints import HintSender
from app.jobs.schemas import (
    ApiTrigger,
    DatabaseTrigger,
    FileTrigger,
    JobError,
    JobStatus,
    Progress,
    State,
)
from app.observability import metrics
from app.observability.logging import get_logger
from app.sources.base import Source

log = get_logger("app.jobs")


@dataclass(frozen=True, slots=True)
class Taken:
    """The job of a request: a new one, or the earlier one with the same key."""

    id: uuid.UUID
    state: State
    replayed: bool


class JobService:
    """The operations behind the job endpoints."""

    def __init__(
        self,
        database: Database,
        hints: HintSender,
        sources: dict[str, Source],
        max_attempts: int,
    ) -> None:
        self._database = database
        self._hints = hints
        self._sources = sources
        self._max_attempts = max_attempts

    async def trigger(
        self,
        trigger: FileTrigger | ApiTrigger | DatabaseTrigger,
        client: str,
        key: str | None,
        request_id: str | None,
    ) -> Taken:
        """Record a job and wake the workers; when this returns, the job is stored."""
        source = self._sources[trigger.source_type]
        refusal = source.check(trigger.config, client)
        if refusal is not None:
            raise field_problem(f"config.{refusal.field}", refusal.message, refusal.code)
        config = trigger.config.model_dump(mode="json", exclude_none=True)
        needs = source.needs(trigger.config)
        job = repository.NewJob(
            uuid.uuid4(),
            client,
            trigger.source_type,
            config,
            needs,
            self._max_attempts,
            request_id,
        )
        earlier = await self._record(job, key)
        if earlier is not None:
            return earlier
        metrics.JOBS_ACCEPTED.labels(trigger.source_type).inc()
        log.info("job accepted", job_id=str(job.id), source_type=job.source_type, client=client)
        await self._hints.send(str(job.id), needs)
        failpoints.reached("trigger.after_hint")
        return Taken(job.id, "queued", replayed=False)

    async def _record(self, job: repository.NewJob, key: str | None) -> Taken | None:
        """Commit a job; return None, or the earlier job if its key exists already."""
        async with self._database.connection() as connection:
            if key is None:
                failpoints.reached("trigger.before_commit")
                # A single statement: it returns only after its commit.
                await repository.insert(connection, job)
            else:
                earlier = await self._record_keyed(connection, job, key)
                if earlier is not None:
                    return earlier
        failpoints.reached("trigger.after_commit")
        return None

    async def _record_keyed(
        self, connection: Connection, job: repository.NewJob, key: str
    ) -> Taken | None:
        async with connection.transaction():
            # Insert the job first, because the key refers to it. If the key exists, roll back both.
            await repository.insert(connection, job)
            fingerprint = _fingerprint(job.source_type, job.config)
            earlier = await repository.remember_key(
                connection, job.client, key, fingerprint, job.id
            )
            if earlier is not None:
                await connection.execute("DELETE FROM jobs WHERE id = %s", (job.id,))
                return _replay(earlier, fingerprint)
            failpoints.reached("trigger.before_commit")
        return None

    async def cancel(self, job_id: uuid.UUID, client: str | None) -> DictRow:
        """Cancel a job; a repeated call returns it again, a finished job raises a 409 problem."""
        while True:
            failpoints.reached("cancel.before")
            row = await repository.cancel(self._database, job_id, client)
            failpoints.reached("cancel.after")
            if row is not None:
                metrics.JOBS_CANCELLED.labels(row["source_type"]).inc()
                log.info("job cancelled", job_id=str(job_id))
                return row
            row = await self.find(job_id, client)
            if row["state"] == "cancelled":
                return row
            # The job is queued or running again: a dead job was requeued in between.
            if row["state"] not in ("queued", "running"):
                raise Problem(
                    409,
                    "job-finished",
                    "The job is finished",
                    f"the job is {row['state']} and can no longer be cancelled",
                    extra={"job_id": str(job_id), "state": row["state"]},
                )

    async def page(
        self, selection: listing.Selection, cursor: listing.Cursor | None, limit: int
    ) -> tuple[Sequence[DictRow], listing.Cursor | None]:
        """Return a page of jobs and the cursor of the next one."""
        return await listing.page(self._database, selection, cursor, limit)

    async def find(self, job_id: uuid.UUID, client: str | None) -> DictRow:
        """Return a job's row; another client's job raises the same 404 as a missing one."""
        return _known(job_id, await repository.get(self._database, job_id, client))

    async def find_with_result(self, job_id: uuid.UUID, client: str | None) -> DictRow:
        """Return a job's row, with the `result` of a succeeded job as JSON text."""
        row = _known(job_id, await repository.get_with_result(self._database, job_id, client))
        if row["state"] == "succeeded" and row["result"] is None:
            raise Problem(410, "result-gone", "The result is no longer kept")
        return row


def _known(job_id: uuid.UUID, row: DictRow | None) -> DictRow:
    if row is None:
        raise Problem(404, "job-unknown", "There is no such job", f"no job {job_id} is known")
    return row


def _fingerprint(source_type: str, config: dict[str, object]) -> bytes:
    text = json.dumps([source_type, config], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _replay(earlier: DictRow, fingerprint: bytes) -> Taken:
    if bytes(earlier["fingerprint"]) != fingerprint:
        raise Problem(
            422,
            "idempotency-key-reused",
            "The idempotency key belongs to another request",
            "the same Idempotency-Key was used with another body; use a new key",
        )
    return Taken(earlier["job_id"], earlier["state"], replayed=True)


def status_of(row: DictRow) -> JobStatus:
    """Return a row in the form that clients see."""
    return JobStatus(
        job_id=row["id"],
        status=row["state"],
        source_type=row["source_type"],
        attempts=row["attempts"],
        max_attempts=row["max_attempts"],
        progress=Progress(processed=row["processed"], total=row["total"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        next_attempt_at=repository.next_attempt(row),
        error=None if row["error"] is None else _told(row["error"]),
    )


def _told(error: dict[str, str]) -> JobError:
    """Return an error for clients: with the message of a source, without an internal one."""
    if error["code"] == repository.INTERNAL:
        message = "the service failed; the error was logged, give the operator the job's id"
        return JobError(code=error["code"], message=message)
    return JobError(**error)
