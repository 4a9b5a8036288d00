"""No input causes a 500, a hang, a leak or lost data in a running service with real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.hostile import FILE, FOR_EVERYBODY, FOR_ONE, MARK
from tests.unit.app.appkit import JSON, Process, Site
from tests.unit.app.test_app_keys import add

pytestmark = pytest.mark.docker

PROBLEM = "application/problem+json"
BODIES = sorted({path for path, _, _ in FOR_ONE})


@pytest.fixture(scope="module")
def web(shared: Site) -> Iterator[Process]:
    """Return a service with one process, so that the checks at the end reach the attacked one."""
    web = shared.serve(WEB_CONCURRENCY="1", AUTH_ENABLED="true")
    web.http.headers["x-api-key"] = add(shared, "attacker")[1]
    before = _counts(shared)
    yield web
    assert web.popen.poll() is None
    assert web.http.post("/predict", json={"text": "good"}).status_code == 200
    assert _counts(shared) == before, "a refused request left something behind"
    for line in web.lines():
        assert line["level"] not in ("error", "critical"), line
        assert MARK not in json.dumps(line)


def _counts(site: Site) -> tuple[Any, ...]:
    counts: tuple[Any, ...] = site.one(
        "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM jobs), "
        "(SELECT count(*) FROM idempotency_keys)"
    )
    return counts


def refused(answer: httpx.Response, statuses: set[int], field: str) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["status"] == answer.status_code
    fields = [error["field"] for error in body["errors"]]
    # A field named MARK can appear only because the client sent it.
    assert field == "?" or field in fields, body
    assert field == MARK or MARK not in answer.text


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", FOR_EVERYBODY)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_bodies_that_nothing_takes(web: Process, path: str, name: str, chunked: bool) -> None:
    content, status, field = FOR_EVERYBODY[name]
    parts = (content[at : at + 65_536] for at in range(0, len(content), 65_536))
    answer = web.http.post(path, content=parts if chunked else content, headers=JSON)
    refused(answer, {status, 422} if status == 400 else {status}, field)


@pytest.mark.parametrize(("path", "body", "field"), FOR_ONE)
def test_fields_that_are_wrong(web: Process, path: str, body: Any, field: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    refused(web.http.post(path, content=content, headers=JSON), {400, 422}, field)


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
@pytest.mark.parametrize("path", BODIES)
def test_other_content_types(web: Process, path: str, kind: str) -> None:
    answer = web.http.post(path, content=b"{}", headers=[(b"content-type", kind.encode())])
    assert answer.status_code in (400, 415, 422)
    assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/items?limit=0", "limit"),
        ("/items?limit=501", "limit"),
        ("/items?limit=" + "9" * 5000, "limit"),
        ("/items?limit=NaN", "limit"),
        ("/items?after=-1", "after"),
        (f"/items?after={2**63}", "after"),
        ("/items?after=%00", "after"),
        ("/items?after=%ff", "after"),
        ("/items?after=%ED%A0%80", "after"),
        ("/api/v1/jobs/status/12", "job_id"),
        ("/api/v1/jobs/status/%00", "job_id"),
        ("/api/v1/jobs/result/%ed%a0%80", "job_id"),
        ("/api/v1/jobs/result/" + "a" * 5000, "job_id"),
    ],
)
def test_paths_and_queries(web: Process, path: str, field: str) -> None:
    refused(web.http.get(path), {422}, field)


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 201, b"\xff", "ä".encode()])
def test_idempotency_keys(web: Process, key: bytes) -> None:
    answer = web.http.post(
        "/api/v1/jobs/trigger",
        json={"source_type": "file", "config": FILE},
        headers=[(b"idempotency-key", key)],
    )
    refused(answer, {422}, "Idempotency-Key")


def raw(web: Process, request: bytes) -> bytes:
    """Send bytes as they are; returns everything that comes until the server closes."""
    host, port = web.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /predict HTTP/1.1\r\nhost: x\r\nx-request-id: a\rinjected: 1\r\n",
        b"GET /predict\x0b HTTP/1.1\r\nhost: x\r\n",
        b"GET /pre\xffdict HTTP/1.1\r\nhost: x\r\n",
        b"GET /%0d%0ainjected:%201 HTTP/1.1\r\nhost: x\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 2\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 30 + b"\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, x\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"BREW /predict HTTP/1.1\r\nhost: x\r\n",
        b"GET /predict HTTP/9.9\r\nhost: x\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_heads_that_are_no_http(web: Process, request_: bytes) -> None:
    answer = raw(web, request_ + b"connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4"), answer
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\ninjected" not in head
    assert b"\r\ncontent-type: application/problem+json" in head


def test_a_body_that_is_broken_off_is_no_error_of_the_service(web: Process) -> None:
    host, port = web.url.removeprefix("http://").split(":")
    key = web.http.headers["x-api-key"]
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = f"POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n"
            connection.sendall(f"{head}content-length: 100\r\n\r\n{{".encode())
    assert web.http.get("/predict").status_code == 200


def test_what_is_sent_cannot_write_a_line_of_the_log(web: Process) -> None:
    forged = '"}\n{"timestamp":"0","level":"critical","event":"forged"}'
    for path in (f"/{quote(forged)}", f"/items?limit={quote(forged)}"):
        web.http.get(path, headers={"x-request-id": "a" * 8 + quote(forged)})
    web.http.post("/items", content=json.dumps({"name": 5, forged: 1}), headers=JSON)
    # `lines` fails unless each line is JSON; no line is the client's.
    assert not [line for line in web.lines() if "forged" in json.dumps(line)]


@pytest.mark.parametrize("keys", [[], [b"wrong"], [b"\xff" * 20], [b"x" * 600], [b"a", b"b"]])
def test_keys_that_are_not_good(web: Process, keys: list[bytes]) -> None:
    with httpx.Client(base_url=web.url) as stranger:
        for path, body in (("/predict", b"[" * 100_000), ("/items", b"x" * 2_000_000)):
            answer = stranger.post(path, content=body, headers=[(b"x-api-key", k) for k in keys])
            assert answer.status_code == 401
            assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize("path", [*BODIES, "/model/info", "/health", "/"])
def test_a_wrong_method_says_which_are_right(web: Process, path: str) -> None:
    answer = web.http.request("DELETE", path)
    assert answer.status_code == 405
    assert answer.headers["allow"]
    assert answer.headers["content-type"] == PROBLEM
