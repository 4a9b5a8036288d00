"""The report of a finished job, in four forms."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.db.pool import Database
from app.http.context import owner_filter
from app.http.problems import ProblemDetail
from app.jobs.processing import Row
from app.jobs.router import unfinished
from app.jobs.schemas import JobStatus
from app.jobs.service import JobService, status_of
from app.reports import document, page, tables

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])

Form = Literal["csv", "json", "html", "pdf"]
_TYPES: dict[str, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
}
_SCHEMAS = {"json": "object"}
# Laying out a document takes a second of one core at most; others wait, requests do not.
_ONE_AT_A_TIME = asyncio.Semaphore(1)


@router.get(
    "/{job_id}/report",
    response_class=Response,
    summary="The report of a finished job",
    responses={
        200: {
            "description": "The report; CSV and JSON hold every entry, HTML and PDF the first ones",
            "content": {
                name.partition(";")[0]: {
                    "schema": {"type": "object" if form == "json" else "string"}
                }
                for form, name in _TYPES.items()
            },
        },
        202: {"model": JobStatus, "description": "The job is not finished"},
        404: {"model": ProblemDetail, "description": "There is no such job"},
        409: {"model": ProblemDetail, "description": "The job failed"},
        410: {"model": ProblemDetail, "description": "The job was cancelled"},
        422: {"model": ProblemDetail, "description": "There is no such format"},
        503: {"model": ProblemDetail, "description": "Postgres is not available"},
    },
)
async def report(
    request: Request,
    job_id: uuid.UUID,
    form: Annotated[Form, Query(alias="format", description="What to get it as.")] = "json",
) -> Response:
    """Totals, labels, how sure the models were, errors, and a row for each entry."""
    service: JobService = request.app.state.jobs
    database: Database = request.app.state.database
    row = await service.find(job_id, owner_filter(request))
    waiting = unfinished(status_of(row))
    if waiting is not None:
        return waiting
    found = document.build(row, await service.result(row))
    headers = _headers(job_id, form)
    if form in ("html", "pdf"):
        render, most = _renderer(form)
        rows = await document.first_rows(database, row, most)
        async with _ONE_AT_A_TIME:
            body = await asyncio.to_thread(render, found, rows)
        return Response(body, media_type=_TYPES[form], headers=headers)
    write = tables.as_csv if form == "csv" else tables.as_json
    stream: AsyncIterator[bytes] = write(found, document.rows(database, row))
    return StreamingResponse(stream, media_type=_TYPES[form], headers=headers)


def _renderer(form: str) -> tuple[Callable[[document.Report, list[Row]], bytes], int]:
    if form == "html":
        return page.render, page.MOST_ROWS
    from app.reports import pdf  # noqa: PLC0415 - a large library, for few requests

    return pdf.render, pdf.MOST_ROWS


def _headers(job_id: uuid.UUID, form: str) -> dict[str, Any]:
    shown = "inline" if form == "html" else "attachment"
    headers = {
        "content-disposition": f'{shown}; filename="report-{job_id}.{form}"',
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-store",
    }
    if form == "html":
        headers["content-security-policy"] = page.POLICY
        headers["referrer-policy"] = "no-referrer"
    return headers
