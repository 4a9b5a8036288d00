"""Requests and answers of the job endpoints."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from app.jobs.listing import CURSOR
from app.sources.schemas import ApiConfig, DatabaseConfig, FileConfig

State = Literal["queued", "running", "succeeded", "failed", "dead", "cancelled"]


class _Trigger(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class FileTrigger(_Trigger):
    """Collect from a file under a registered root."""

    source_type: Literal["file"]
    config: FileConfig


class ApiTrigger(_Trigger):
    """Collect from an HTTP address whose host this site allows."""

    source_type: Literal["api"]
    config: ApiConfig


class DatabaseTrigger(_Trigger):
    """Collect from a database that this site registered."""

    source_type: Literal["database"]
    config: DatabaseConfig


Trigger = Annotated[FileTrigger | ApiTrigger | DatabaseTrigger, Field(discriminator="source_type")]


class Accepted(BaseModel):
    """A job was recorded and will be run."""

    job_id: uuid.UUID
    status: State
    status_url: str = Field(examples=["/api/v1/jobs/status/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"])
    result_url: str = Field(examples=["/api/v1/jobs/result/6f9619ff-8b86-4d01-b42d-00cf4fc964ff"])


class Progress(BaseModel):
    """How far a job is, in records."""

    processed: int
    total: int | None = None


class JobError(BaseModel):
    """Why an attempt or the job failed."""

    code: str = Field(examples=["file-not-found"])
    message: str = Field(examples=["there is no file reviews.csv under the root inbox"])


class JobStatus(BaseModel):
    """One job as it is now."""

    job_id: uuid.UUID
    status: State
    source_type: str
    attempts: int
    max_attempts: int
    progress: Progress
    created_at: dt.datetime
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    next_attempt_at: dt.datetime | None = Field(
        default=None, description="When the next attempt of a job starts."
    )
    error: JobError | None = Field(default=None, description="Why the last attempt failed.")


def _no_number(value: object) -> object:
    """Reject a number: pydantic would read it as seconds, but it is not a date and time."""
    if isinstance(value, str) and "T" not in value.upper():
        msg = "must be a date and time such as 2026-11-22T02:15:04Z"
        raise ValueError(msg)
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_no_number)]


class JobQuery(BaseModel):
    """Which jobs to list; a misspelt filter is an error, not the whole list."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    status: list[State] = Field(default=[], max_length=6, description="Any of these states.")
    source_type: list[Literal["api", "database", "file"]] = Field(
        default=[], max_length=3, description="Any of these sources."
    )
    created_from: Moment | None = Field(
        default=None, description="Accepted at this time or later; with an offset or Z."
    )
    created_before: Moment | None = Field(
        default=None, description="Accepted before this time; with an offset or Z."
    )
    limit: int = Field(default=50, ge=1, le=200, description="Maximal number of entries.")
    cursor: str | None = Field(
        default=None, pattern=CURSOR, description="`next_cursor` of the previous page."
    )


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobStatus]
    next_cursor: str | None = Field(
        default=None, description="Where the next page starts; null on the last one."
    )


class JobFinished(BaseModel):
    """A job that succeeded, and when."""

    job_id: uuid.UUID
    status: Literal["succeeded"]
    finished_at: dt.datetime


class JobResult(JobFinished):
    """What a finished job found."""

    result: dict[str, Any]
