"""At least one example per endpoint: the request and its answer.

They appear in the OpenAPI document and in docs/API.md (`scripts/api_doc.py`). A test sends each to
a running service and compares the answers. Add an entry for each new endpoint.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Placeholder in paths: the job of the first example of `POST /api/v1/jobs/trigger`.
JOB_ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
_IDENTITY = {"release": "1.0.0", "colour": "blue"}


class Example(NamedTuple):
    """A request and its answer; `answer` is a JSON value, or the start of a text."""

    name: str
    answer: Any
    body: Any = None
    status: int = 200
    query: str = ""
    headers: dict[str, str] = {}  # noqa: RUF012 - never modified
    # The shell variable with the job's id: of a finished job, or of a queued one.
    job: str = "JOB"


_ALIVE = (Example("alive", {"status": "ok", **_IDENTITY}),)

_SENTIMENT = {
    "name": "sentiment",
    "version": "1.0.0",
    "type": "TF-IDF (1-2 words) and rated words, multinomial logistic regression",
    "labels": ["negative", "neutral", "positive"],
    "features": None,
    "vocabulary_size": 56865,
    "trained_at": "2026-11-22",
    "sha256": "c483f729b3c011ab1fadb97f3b0c21beafb20409394c1f210b6da8bee621b120",
    "metrics": {
        "method": "5-fold cross-validation, documents and near-duplicates kept together",
        "accuracy_three_classes": 0.6996,
        "accuracy_two_classes": 0.7798,
        "f1_macro": 0.653,
    },
}
_IRIS = {
    "name": "iris",
    "version": "1.0.0",
    "type": "multinomial logistic regression",
    "labels": ["setosa", "versicolor", "virginica"],
    "features": ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"],
    "vocabulary_size": None,
    "trained_at": "2026-11-22",
    "sha256": "f943d2b23eb56410d1e333cc5734b5730c83b86c58ae31ecca1c00a0d7ce9a77",
    "metrics": {"method": "five-fold cross-validation", "accuracy": 0.96},
}

_HEALTH: dict[tuple[str, str], tuple[Example, ...]] = {
    ("get", "/"): (
        Example(
            "root",
            {
                "service": "Data Collection Service",
                "version": "1.0.0",
                **_IDENTITY,
                "docs": {"swagger": "/docs", "redoc": "/redoc", "openapi": "/openapi.json"},
            },
        ),
    ),
    ("get", "/health"): _ALIVE,
    ("get", "/healthz"): _ALIVE,
    ("get", "/health/live"): _ALIVE,
    ("get", "/health/ready"): (
        Example(
            "ready",
            {
                "status": "ready",
                "checks": {
                    "postgres": "ok",
                    "schema": "ok",
                    "models": "ok",
                    "redis": "ok",
                    "queue": "ok",
                },
                **_IDENTITY,
            },
        ),
    ),
    ("get", "/metrics"): (
        Example(
            "exposition",
            "# HELP app_requests_total Answered requests; endpoint is the route's template.\n"
            "# TYPE app_requests_total counter\n",
        ),
    ),
}

_LOVED = {
    "label": "positive",
    "probability": 0.970579,
    "probabilities": {"negative": 0.011906, "neutral": 0.017515, "positive": 0.970579},
    "coverage": 1.0,
    "model": "sentiment",
    "model_version": "1.0.0",
}
_SETOSA = {
    "class": "setosa",
    "probability": 0.984703,
    "probabilities": {"setosa": 0.984703, "versicolor": 0.015297, "virginica": 0.0},
    "model": "iris",
    "model_version": "1.0.0",
}
_PREDICT: dict[tuple[str, str], tuple[Example, ...]] = {
    ("get", "/predict"): (Example("baseline", {"score": 0.75}),),
    ("post", "/predict"): (
        Example(
            "text",
            {
                "label": "positive",
                "probability": 0.610102,
                "probabilities": {"negative": 0.202564, "neutral": 0.187334, "positive": 0.610102},
                "coverage": 1.0,
                "model": "sentiment",
                "model_version": "1.0.0",
            },
            {"text": "The delivery was quick and the support was friendly."},
        ),
        Example("row", _SETOSA, {"data": [5.1, 3.5, 1.4, 0.2]}),
    ),
    ("post", "/predict/batch"): (
        Example(
            "mixed",
            {"count": 2, "predictions": [_LOVED, _SETOSA]},
            {"items": [{"text": "I love it."}, {"data": [5.1, 3.5, 1.4, 0.2]}]},
        ),
    ),
    ("get", "/model/info"): (Example("models", {"models": [_SENTIMENT, _IRIS]}),),
}

_ITEM = {"id": 1, "name": "demo", "created_at": "2026-11-22T02:15:04.385701Z"}
_ITEMS: dict[tuple[str, str], tuple[Example, ...]] = {
    ("post", "/items"): (Example("item", _ITEM, {"name": "demo"}, status=201),),
    ("get", "/items"): (
        Example("first page", [_ITEM], query="?limit=100"),
        Example("next page", [], query="?limit=100&after=1000000"),
    ),
}

_ACCEPTED = {
    "job_id": JOB_ID,
    "status": "queued",
    "status_url": f"/api/v1/jobs/status/{JOB_ID}",
    "result_url": f"/api/v1/jobs/result/{JOB_ID}",
}
_RESULT = {
    "source": {
        "type": "file",
        "root": "inbox",
        "path": "reviews.csv",
        "format": "csv",
        "bytes": 48,
        "sha256": "0b8b60c5f74575a8bc8a14d55a0d0e98d10ba2cad4b8bec2597014e592fb5d1f",
    },
    "records": {"collected": 3, "processed": 3, "rejected": 0, "skipped": {"no text": 1}},
    "errors": {
        "total": 1,
        "reasons": {"no text": 1},
        "sample": [{"line": 4, "field": "comment", "reason": "no text"}],
    },
    "sentiment": {
        "field": "comment",
        "model": "sentiment",
        "version": "1.0.0",
        "classified": 2,
        "counts": {"negative": 1, "neutral": 0, "positive": 1},
        "shares": {"negative": 0.5, "neutral": 0.0, "positive": 0.5},
        "mean_probability": 0.9032,
        "confidence": {"0.9 or more": 1, "0.8 to 0.9": 1, "0.6 to 0.8": 0, "below 0.6": 0},
        "mean_positive": 0.5136,
        "mean_coverage": 1.0,
        "no_known_word": 0,
    },
    "sample": [
        {"record": 0, "sentiment": "positive", "probability": 0.970579, "coverage": 1.0},
        {"record": 1, "sentiment": "negative", "probability": 0.835806, "coverage": 1.0},
    ],
}
_NO_CLASS = {"class": None, "class_probability": None}
_REPORT = {
    "job": {
        "job_id": JOB_ID,
        "source_type": "file",
        "attempts": 1,
        "created_at": "2026-11-22T02:15:04Z",
        "started_at": "2026-11-22T02:15:04Z",
        "finished_at": "2026-11-22T02:15:04Z",
    },
    **{name: value for name, value in _RESULT.items() if name != "sample"},
    "rows": [
        {"record": 0, "line": 2, "id": "1", "sentiment": "positive", "probability": 0.970579,
         **_NO_CLASS, "error": None},
        {"record": 1, "line": 3, "id": "2", "sentiment": "negative", "probability": 0.835806,
         **_NO_CLASS, "error": None},
        {"record": 2, "line": 4, "id": "3", "sentiment": None, "probability": None,
         **_NO_CLASS, "error": "no text"},
    ],
}  # fmt: skip
_CSV = (
    "section,part,name,value,record,line,id,sentiment,probability,class,class_probability,error\n"
    "summary,job,source_type,file,,,,,,,,\n"
)
_STATUS = {
    "job_id": JOB_ID,
    "status": "succeeded",
    "source_type": "file",
    "attempts": 1,
    "max_attempts": 5,
    "progress": {"processed": 3, "total": 3},
    "created_at": "2026-11-22T02:15:04.385701Z",
    "started_at": "2026-11-22T02:15:04.391245Z",
    "finished_at": "2026-11-22T02:15:04.402318Z",
    "next_attempt_at": None,
    "error": None,
}
_CANCELLED = {
    **_STATUS,
    "status": "cancelled",
    "attempts": 0,
    "progress": {"processed": 0, "total": None},
    "started_at": None,
}
_JOBS: dict[tuple[str, str], tuple[Example, ...]] = {
    ("post", "/api/v1/jobs/trigger"): (
        Example(
            "file",
            _ACCEPTED,
            {"source_type": "file", "config": {"root": "inbox", "path": "reviews.csv"}},
            status=202,
            headers={"Idempotency-Key": "reviews-2026-11-22"},
        ),
        Example(
            "api",
            _ACCEPTED,
            {
                "source_type": "api",
                "config": {"url": "https://data.client.example:8443/reviews"},
            },
            status=202,
        ),
    ),
    ("get", "/api/v1/jobs"): (
        Example(
            "succeeded",
            {"jobs": [_STATUS], "next_cursor": "AAZg1LLhxSd36NIyycNIA7_qvbSSYJAS"},
            query="?status=succeeded&source_type=file&limit=1",
        ),
    ),
    ("post", "/api/v1/jobs/{job_id}/cancel"): (Example("cancelled", _CANCELLED, job="WAITING"),),
    ("get", "/api/v1/jobs/{job_id}/report"): (
        Example("json", _REPORT),
        Example("csv", _CSV, query="?format=csv"),
    ),
    ("get", "/api/v1/jobs/status/{job_id}"): (Example("done", _STATUS),),
    ("get", "/api/v1/jobs/result/{job_id}"): (
        Example(
            "done",
            {
                "job_id": JOB_ID,
                "status": "succeeded",
                "finished_at": "2026-11-22T02:15:04.402318Z",
                "result": _RESULT,
            },
        ),
    ),
}

EXAMPLES = {**_PREDICT, **_JOBS, **_ITEMS, **_HEALTH}

# The example error per status in the OpenAPI document: title, detail, slug of its type.
PROBLEMS: dict[str, tuple[str, str, str]] = {
    "400": ("The body is not JSON", "it is not UTF-8 text, or a number in it has too many digits",
            "malformed-json"),
    "401": ("A valid API key is needed", "send one valid key in the X-API-Key header",
            "unauthorised"),
    "403": ("The key lacks a scope", "the request needs a key with the scope jobs",
            "scope-missing"),
    "408": ("The body came too slowly", "it was not complete within 30 s", "upload-timeout"),
    "413": ("The body is too large", "the body is larger than 1048576 bytes", "content-too-large"),
    "415": ("The form of the body is not supported",
            "the Content-Type must be application/json", "unsupported-media-type"),
    "422": ("The request is not valid", "1 field is wrong: text", "validation"),
    "429": ("Too many requests", "this key is allowed 60 requests per minute; try again in 42 s",
            "rate-limited"),
    "431": ("The head of the request is too large",
            "its first line and its headers are larger than 32768 bytes", "head-too-large"),
    "503": ("Postgres is not available", "try again in a few seconds", "unavailable"),
    "504": ("The answer took too long",
            "there was no answer within 30 s; the request may still take effect", "timeout"),
}  # fmt: skip


def problem(status: str) -> dict[str, Any]:
    """Return the example of the error with this status."""
    title, detail, slug = PROBLEMS[status]
    body: dict[str, Any] = {
        "type": f"urn:airlift:problem:{slug}",
        "title": title,
        "status": int(status),
        "detail": detail,
        "instance": "/predict",
        "request_id": "0f8fad5bd9cb469fa16570867728950e",
    }
    if status == "422":
        body["errors"] = [{"field": "text", "message": "Field required", "code": "missing"}]
    return body
