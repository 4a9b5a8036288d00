"""The job endpoints."""

from __future__ import annotations

import re
import uuid
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.http.answers import answer, encoded
from app.http.context import caller, context_of, owner_filter
from app.http.problems import ProblemDetail, field_problem
from app.jobs.answers import ANSWERS, ANSWERS_OF_FINISHED, unfinished
from app.jobs.listing import NO_CURSOR, Cursor, Selection
from app.jobs.schemas import (
    Accepted,
    JobFinished,
    JobPage,
    JobQuery,
    JobResult,
    JobStatus,
    Trigger,
)
from app.jobs.service import JobService, status_of

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_EVERY = JobQuery()


def _service(request: Request) -> JobService:
    service: JobService = request.app.state.jobs
    return service


@router.post(
    "/trigger",
    status_code=202,
    response_model=Accepted,
    summary="Start a collection job",
    responses={
        422: {"model": ProblemDetail, "description": "A field is wrong or a source is refused"},
        503: ANSWERS[503],
    },
)
async def trigger(
    request: Request,
    body: Trigger,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="A repeated request with the same key and body gets the same job.",
            json_schema_extra={"minLength": 1, "maxLength": 200, "pattern": r"^[\x21-\x7e]+$"},
        ),
    ] = None,
) -> Response:
    """Record a job; it is stored in Postgres before the answer, even without Redis."""
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise field_problem("Idempotency-Key", "must be 1 to 200 visible ASCII characters")
    taken = await _service(request).trigger(
        body, caller(request), idempotency_key, context_of(request.scope).request_id or None
    )
    status_url = f"/api/v1/jobs/status/{taken.id}"
    headers = {"location": status_url}
    if taken.replayed:
        headers["idempotent-replayed"] = "true"
    accepted = Accepted(
        job_id=taken.id,
        status=taken.state,
        status_url=status_url,
        result_url=f"/api/v1/jobs/result/{taken.id}",
    )
    return answer(accepted, 202, headers)


@router.get(
    "",
    name="list",
    response_model=JobPage,
    summary="List jobs, newest first",
    responses={
        422: {"model": ProblemDetail, "description": "A filter or the cursor is wrong"},
        503: ANSWERS[503],
    },
)
async def list_jobs(request: Request, query: Annotated[JobQuery, Query()] = _EVERY) -> Response:
    """Return the caller's own jobs; jobs that are accepted meanwhile do not change later pages."""
    try:
        cursor = None if query.cursor is None else Cursor.of(query.cursor)
    except ValueError:
        raise field_problem("cursor", NO_CURSOR) from None
    selection = Selection(
        owner_filter(request),
        query.status,
        query.source_type,
        query.created_from,
        query.created_before,
    )
    rows, following = await _service(request).page(selection, cursor, query.limit)
    page = JobPage(
        jobs=[status_of(row) for row in rows],
        next_cursor=None if following is None else following.text(),
    )
    return answer(page)


@router.post(
    "/{job_id}/cancel",
    response_model=JobStatus,
    summary="Cancel a job",
    responses={
        **ANSWERS,
        409: {"model": ProblemDetail, "description": "The job is finished; `state` says how"},
    },
)
async def cancel(request: Request, job_id: uuid.UUID) -> Response:
    """Cancel a job that waits or runs: none of its later results are stored.

    A worker in the middle of it stops within two seconds. Cancelling again changes nothing.
    """
    return answer(status_of(await _service(request).cancel(job_id, owner_filter(request))))


@router.get(
    "/status/{job_id}",
    response_model=JobStatus,
    summary="Status of a job",
    responses=ANSWERS,
)
async def status(request: Request, job_id: uuid.UUID) -> Response:
    """Return state, attempts, times and progress."""
    return answer(status_of(await _service(request).find(job_id, owner_filter(request))))


@router.get(
    "/result/{job_id}",
    response_model=JobResult,
    summary="Result of a job",
    responses=ANSWERS_OF_FINISHED,
)
async def result(request: Request, job_id: uuid.UUID) -> Response:
    """Return the result, or 202 with the job's status while the job is not finished."""
    row = await _service(request).find_with_result(job_id, owner_filter(request))
    waiting = unfinished(status_of(row))
    if waiting is not None:
        return waiting
    done = JobFinished(job_id=row["id"], status="succeeded", finished_at=row["finished_at"])
    # The stored result is JSON already.
    body = f'{done.model_dump_json()[:-1]},"result":{row["result"]}}}'
    return encoded(body.encode())
