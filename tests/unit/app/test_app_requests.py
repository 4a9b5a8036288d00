"""Rules for all endpoints: the method, the query and the encoding of a request."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.unit.app.appkit import JSON, Client, Process, Site

PROBLEM = "application/problem+json"
JOB = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


@pytest.fixture(scope="module")
def web(shared: Site) -> Process:
    shared.worker()
    return shared.serve(WEB_CONCURRENCY="1")


def operations(app: FastAPI, *methods: str) -> list[tuple[str, str]]:
    """Return the document's operations with one of these methods, with a job id filled in."""
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
#: Headers that differ in each answer.
_OF_ITS_OWN = {"x-request-id", "date", "ratelimit-remaining", "ratelimit-reset"}


def same_head(got: httpx.Response, head: httpx.Response) -> None:
    assert head.content == b""
    assert head.status_code == got.status_code
    kept = [{k: v for k, v in one.headers.items() if k not in _OF_ITS_OWN} for one in (got, head)]
    # Each request changes the metrics, and a streamed answer has no known length.
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
    # The connection stays usable: HEAD sent no body.
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


# ---------------------------------------------------------------- names in the query
BARE = [("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json")]


def test_a_name_that_no_query_has_is_refused_alike_everywhere(client: Client, app: FastAPI) -> None:
    found = operations(app, "get", "post") + BARE
    assert len(found) > 15
    for method, path in found:
        answer = problem(client.request(method, f"{path}?offset=10"), 422)
        del answer["request_id"]
        assert answer == {
            "type": "urn:airlift:problem:validation",
            "title": "The request is not valid",
            "status": 422,
            "detail": "1 field is wrong: offset",
            "instance": path,
            "errors": [
                {
                    "field": "offset",
                    "message": "Extra inputs are not permitted",
                    "code": "extra_forbidden",
                }
            ],
        }
    assert client.request("HEAD", "/health?offset=10").status_code == 422


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=5&after=0", []),
        ("", []),
        ("&&", []),
        ("Limit=5", ["Limit"]),
        ("limit=5&a=1&b=&a=2&c", ["a", "b", "c"]),
        ("limit%00=5", ["limit\x00"]),
        ("=5", [""]),
        ("%ff=1", ["\ufffd"]),
        ("x" * 5000 + "=1", ["x" * 100]),
        ("&".join(f"n{number}=1" for number in range(500)), [f"n{n}" for n in range(20)]),
    ],
)
def test_each_name_that_is_not_known_is_named(
    client: Client, query: str, fields: list[str]
) -> None:
    answer = client.get(f"/items?{query}")
    if fields:
        assert [error["field"] for error in problem(answer, 422)["errors"]] == fields
    else:
        problem(answer, 503)  # Postgres is missing


@pytest.mark.parametrize("path", ["/nowhere", "/docs/oauth2-redirect", "/static-offline-docs/x"])
def test_what_is_no_operation_is_answered_as_before(client: Client, path: str) -> None:
    assert client.get(f"{path}?code=1").status_code == client.get(path).status_code
    assert client.request("DELETE", "/items?x=1").status_code == 405


# ---------------------------------------------------------------- how a body is written
def bodies(app: FastAPI) -> list[str]:
    paths = app.openapi()["paths"]
    return [path for path, found in paths.items() if "requestBody" in found.get("post", {})]


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Content-Type"),
        ({"content-type": ""}, "Content-Type"),
        ({"content-type": "text/plain"}, "Content-Type"),
        ({"content-type": "text/json"}, "Content-Type"),
        ({"content-type": "application/x-www-form-urlencoded"}, "Content-Type"),
        ({"content-type": "multipart/form-data; boundary=x"}, "Content-Type"),
        ({"content-type": "application/json, text/plain"}, "Content-Type"),
        ({"content-type": "application/json; charset=latin-1"}, "charset"),
        ({"content-type": 'application/json;charset="UTF-16"'}, "charset"),
        (JSON | {"content-encoding": "gzip"}, "encoded"),
        (JSON | {"content-encoding": "identity, br"}, "encoded"),
        (JSON | {"content-encoding": "Deflate"}, "encoded"),
    ],
)
def test_a_body_in_a_form_that_is_not_read_is_a_415(
    client: Client, app: FastAPI, headers: dict[str, str], detail: str
) -> None:
    found = bodies(app)
    assert len(found) == 4
    for path in found:
        answer = client.post(path, content=b'{"text": "good"}', headers=headers)
        said = problem(answer, 415)
        assert detail in said["detail"]
        assert said["errors"][0]["field"] == "body"
        if detail == "encoded":
            assert answer.headers["accept-encoding"] == "identity"
        else:
            assert answer.headers["accept"] == "application/json"


@pytest.mark.parametrize(
    "headers",
    [
        JSON,
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "Application/JSON;Charset=UTF-8"},
        {"content-type": "application/vnd.client+json"},
        JSON | {"content-encoding": "identity"},
    ],
)
def test_json_in_utf8_is_read_however_it_is_declared(
    client: Client, headers: dict[str, str]
) -> None:
    for path, body, status in (
        ("/predict", b'{"text": "good"}', 200),
        ("/items", b'{"name": "demo"}', 503),  # Postgres is missing
    ):
        assert client.post(path, content=body, headers=headers).status_code == status


def test_without_a_body_it_is_the_body_that_is_missing(client: Client, app: FastAPI) -> None:
    for path in bodies(app):
        problem(client.post(path), 422)


@pytest.mark.docker
def test_what_is_refused_unread_leaves_the_connection_in_order(web: Process) -> None:
    for _ in range(3):
        refused = web.http.post("/items", content=b"x" * 100_000, headers={"content-type": "a/b"})
        problem(refused, 415)
        assert web.http.get("/health").status_code == 200
