"""What a request may be, whatever endpoint it is for: its method, its query, its encodings."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.unit.app.appkit import Client, Process, Site

PROBLEM = "application/problem+json"
JOB = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@pytest.fixture(scope="module")
def web(shared: Site) -> Process:
    shared.worker()
    return shared.serve(WEB_CONCURRENCY="1")


def operations(app: FastAPI, *methods: str) -> list[tuple[str, str]]:
    """The document's operations with one of some methods, as they are sent."""
    return [
        (method.upper(), path.replace("{job_id}", JOB))
        for path, found in app.openapi()["paths"].items()
        for method in found
        if method in methods
    ]


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body: dict[str, Any] = answer.json()
    return body


# ---------------------------------------------------------------- HEAD
#: Different each time.
_OF_ITS_OWN = {"x-request-id", "date", "ratelimit-remaining", "ratelimit-reset"}


def same_head(got: httpx.Response, head: httpx.Response) -> None:
    assert head.content == b""
    assert head.status_code == got.status_code
    kept = [{k: v for k, v in one.headers.items() if k not in _OF_ITS_OWN} for one in (got, head)]
    # The metrics grow by each request, and what is made piece by piece has no length yet.
    if "/metrics" in str(got.url) or "transfer-encoding" in got.headers:
        sizes = ("content-length", "transfer-encoding")
        kept = [{k: v for k, v in one.items() if k not in sizes} for one in kept]
    assert kept[0] == kept[1]


@pytest.mark.docker
def test_head_is_answered_as_get_is_and_without_a_body(
    web: Process, shared: Site, app: FastAPI
) -> None:
    job = shared.trigger(web)
    shared.wait_for(web, job, "succeeded")
    paths = [path.replace(JOB, job) for _, path in operations(app, "get")]
    paths += [f"/api/v1/jobs/{job}/report?format={form}" for form in ("csv", "html", "pdf")]
    paths += ["/docs", "/redoc", "/openapi.json", "/static-offline-docs/favicon.png"]
    paths += ["/nowhere", "/items?limit=0", f"/api/v1/jobs/status/{JOB}", "/api/v1/jobs/trigger"]
    for path in paths:
        same_head(web.http.get(path), web.http.head(path))
    # The connection is good for more: nothing was sent that belongs to no answer.
    assert web.http.get("/health").json()["status"] == "ok"


@pytest.mark.docker
def test_head_needs_a_key_like_get(shared: Site) -> None:
    web = shared.serve(AUTH_ENABLED="true", WEB_CONCURRENCY="1")
    same_head(web.http.get("/items"), web.http.head("/items"))
    assert web.http.head("/items").status_code == 401


def test_a_wrong_method_names_head_where_get_is(client: Client, app: FastAPI) -> None:
    for path in {path for _, path in operations(app, "get", "post")}:
        template = path.replace(JOB, "{job_id}")
        methods = {method.upper() for method in app.openapi()["paths"][template]}
        allowed = sorted(methods | ({"HEAD"} if "GET" in methods else set()))
        assert client.request("DELETE", path).headers["allow"] == ", ".join(allowed)
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.request("DELETE", path).headers["allow"] == "GET, HEAD"
    assert client.request("HEAD", "/predict/batch").headers["allow"] == "POST"
