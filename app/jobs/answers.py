"""What the endpoints of jobs and of reports have in common."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from app.http.answers import answer
from app.http.problems import Problem, ProblemDetail
from app.jobs.schemas import JobStatus

ANSWERS: dict[int | str, dict[str, Any]] = {
    404: {"model": ProblemDetail, "description": "There is no such job"},
    503: {"model": ProblemDetail, "description": "Postgres is not available"},
}
#: The documented answers when a job's result or report does not exist.
ANSWERS_OF_FINISHED: dict[int | str, dict[str, Any]] = {
    **ANSWERS,
    202: {"model": JobStatus, "description": "The job is not finished"},
    409: {"model": ProblemDetail, "description": "The job failed"},
    410: {"model": ProblemDetail, "description": "The job was cancelled"},
}


def unfinished(job: JobStatus) -> Response | None:
    """Return the answer for a job without a result; None if it succeeded."""
    if job.status in ("queued", "running"):
        return answer(job, 202, {"retry-after": "1"})
    if job.status == "cancelled":
        raise Problem(410, "job-cancelled", "The job was cancelled", "it has no result")
    if job.status in ("failed", "dead"):
        reason = job.error.message if job.error else "unknown"
        raise Problem(
            409,
            f"job-{job.status}",
            "The job failed"
            if job.status == "failed"
            else "The job is dead: it failed at every attempt",
            reason,
            extra={
                "job_id": str(job.job_id),
                "attempts": job.attempts,
                "error": job.error.model_dump() if job.error else None,
            },
        )
    return None
