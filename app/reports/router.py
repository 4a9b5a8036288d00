"""The endpoint for the report of a finished job, in four formats."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.db.pool import Database
from app.http.context import owner_filter
from app.http.problems import ProblemDetail
from app.jobs.answers import ANSWERS_OF_FINISHED, unfinished
from app.jobs.service import JobService, status_of
from app.reports import document, page, tables
from app.reports.renderer import Renderer

router = APIRouter(prefix="/api/v1/jobs", tags=["jobs"])

Form = Literal["csv", "json", "html", "pdf"]
_TYPES: dict[str, str] = {
    "csv": "text/csv; charset=utf-8; header=present",
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
}
_SCHEMAS = {"json": "object"}


@router.get(
    "/{job_id}/report",
    response_class=Response,
    summary="The report of a finished job",
    responses={
        200: {
            "description": "The report; CSV and JSON have all entries, HTML and PDF the first ones",
            "content": {
                name.partition(";")[0]: {
                    "schema": {"type": "object" if form == "json" else "string"}
                }
                for form, name in _TYPES.items()
            },
        },
        **ANSWERS_OF_FINISHED,
        422: {"model": ProblemDetail, "description": "There is no such format"},
    },
)
async def report(
    request: Request,
    job_id: uuid.UUID,
    form: Annotated[Form, Query(alias="format", description="Format of the report.")] = "json",
) -> Response:
    """Totals, labels, how sure the models were, errors, and a row for each entry."""
    service: JobService = request.app.state.jobs
    database: Database = request.app.state.database
    row = await service.find_with_result(job_id, owner_filter(request))
    waiting = unfinished(status_of(row))
    if waiting is not None:
        return waiting
    headers = _headers(job_id, form)
    renderer: Renderer = request.app.state.renderer
    for_people = form in ("html", "pdf")
    body = await renderer.body(form, row) if for_people else renderer.kept(form, row)
    if body is not None:
        return Response(body, media_type=_TYPES[form], headers=headers)
    found = document.build(row, json.loads(row["result"]))
    write = tables.as_csv if form == "csv" else tables.as_json
    stream = renderer.keeping(form, row, write(found, document.rows(database, row)))
    return StreamingResponse(stream, media_type=_TYPES[form], headers=headers)


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
