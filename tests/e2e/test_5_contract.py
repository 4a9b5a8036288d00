"""Every request of the contract, sent through Nginx on the installed site."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable

import pytest

from scripts.journey import Journey
from scripts.lab import Lab
from tests.e2e.support import API, API_URL, address, metrics_of, ok


def alive(path: str) -> Callable[[Journey], None]:
    """Return the check of a liveness path."""

    def check(site: Journey) -> None:
        status, _, answer = site.request("GET", path, key=False)
        assert status == 200
        assert answer["status"] == "ok"

    return check


def a4(site: Journey) -> None:
    status, _, answer = site.request("GET", "/health/ready", key=False)
    assert status == 200
    assert answer["status"] == "ready"
    assert set(answer["checks"].values()) == {"ok"}
    assert answer["release"] == site.facts.manifest["version"]


def a5(site: Journey) -> None:
    """Clients are not allowed to read metrics; the monitor zone is."""
    assert site.request("GET", "/metrics", key=True)[0] == 403
    text = metrics_of(site, "app-1")
    for name in ("app_requests_total", "app_request_latency_seconds_bucket", "app_errors_total"):
        assert name in text


def a6(site: Journey) -> None:
    answer = ok(site, "GET", "/")
    assert answer["service"]
    assert answer["colour"] == "blue"
    assert answer["docs"]


def a7(site: Journey) -> None:
    """Run a file job and an api job; a repeated idempotency key returns the same job."""
    site.feed()
    key = str(uuid.uuid4())
    job = {"source_type": "file", "config": {"root": "inbox", "path": "demo.csv"}}
    path = "/api/v1/jobs/trigger"
    first = site.request("POST", path, job, headers={"Idempotency-Key": key})
    again = site.request("POST", path, job, headers={"Idempotency-Key": key})
    assert (first[0], again[0]) == (202, 202)
    assert first[2]["job_id"] == again[2]["job_id"]
    status, result = site.result_of(first[2]["job_id"])
    assert (status, result["status"]) == (200, "succeeded")


def a7_api(site: Journey) -> None:
    with site.lab.running("router", API):
        job = {"source_type": "api", "config": {"url": f"{API_URL}/reviews"}}
        accepted = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)
        status, result = site.result_of(accepted["job_id"])
        assert status == 200
        assert result["result"]
    refused = {"source_type": "api", "config": {"url": "http://172.30.3.10:5432/"}}
    assert site.request("POST", "/api/v1/jobs/trigger", refused)[0] == 422


def a8(site: Journey) -> None:
    site.feed()
    job = {"source_type": "file", "config": {"root": "inbox", "path": "demo.csv"}}
    accepted = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)
    site.result_of(accepted["job_id"])
    answer = ok(site, "GET", f"/api/v1/jobs/status/{accepted['job_id']}")
    assert answer["status"] == "succeeded"
    assert answer["attempts"] == 1
    assert answer["finished_at"] >= answer["created_at"]
    assert answer["progress"]["processed"] > 0
    assert site.request("GET", f"/api/v1/jobs/status/{uuid.uuid4()}")[0] == 404


def a9(site: Journey) -> None:
    """A job that cannot succeed reports the reason; an unknown job is a 404."""
    job = {"source_type": "file", "config": {"root": "inbox", "path": "not-there.csv"}}
    accepted = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)
    status, answer = site.result_of(accepted["job_id"], seconds=120)
    assert status == 409
    assert "not-there.csv" in json.dumps(answer)
    assert site.request("GET", f"/api/v1/jobs/result/{uuid.uuid4()}")[0] == 404


def a11(site: Journey) -> None:
    """Get the report in each form; an unknown format is refused by name."""
    site.feed()
    job = {"source_type": "file", "config": {"root": "inbox", "path": "demo.csv"}}
    accepted = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)
    site.result_of(accepted["job_id"])
    path = f"/api/v1/jobs/{accepted['job_id']}/report?format="
    found = ok(site, "GET", path + "json")
    assert found["job"]["job_id"] == accepted["job_id"]
    assert len(found["rows"]) == found["records"]["collected"] > 0
    for form, beginning in (("csv", "section,"), ("html", "<!doctype html>"), ("pdf", "%PDF")):
        status, got, answer = site.request("GET", path + form)
        headers = {name.lower(): value for name, value in got.items()}
        assert status == 200
        assert str(answer).startswith(beginning)
        assert f".{form}" in headers["content-disposition"]
        assert form != "html" or "default-src 'none'" in headers["content-security-policy"]
    status, _, answer = site.request("GET", path + "xml")
    assert status == 422
    assert answer["errors"][0]["field"] == "format"
    assert site.request("GET", f"/api/v1/jobs/{uuid.uuid4()}/report")[0] == 404


def a10(site: Journey) -> None:
    """A job whose source does not answer is cancelled between attempts, and stays in the list."""
    job = {"source_type": "api", "config": {"url": f"{API_URL}/away"}}
    identity = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)["job_id"]
    for _ in range(2):
        assert ok(site, "POST", f"/api/v1/jobs/{identity}/cancel")["status"] == "cancelled"
    assert site.request("GET", f"/api/v1/jobs/result/{identity}")[0] == 410
    page = ok(site, "GET", "/api/v1/jobs?status=cancelled&source_type=api&limit=1")
    assert [row["job_id"] for row in page["jobs"]] == [identity]
    assert site.request("GET", "/api/v1/jobs?status=wrong")[0] == 422
    job = {"source_type": "file", "config": {"root": "inbox", "path": "not-there.csv"}}
    finished = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)["job_id"]
    site.result_of(finished, seconds=120)
    status, _, answer = site.request("POST", f"/api/v1/jobs/{finished}/cancel")
    assert (status, answer["state"]) == (409, "failed")
    assert site.request("POST", f"/api/v1/jobs/{uuid.uuid4()}/cancel")[0] == 404


def a12(site: Journey) -> None:
    good = ok(site, "POST", "/predict", {"text": "This is wonderful, I love it."})
    bad = ok(site, "POST", "/predict", {"text": "This is terrible, I hate it."})
    assert (good["label"], bad["label"]) == ("positive", "negative")
    assert 0.5 <= good["probability"] <= 1


def a13(site: Journey) -> None:
    answer = ok(site, "POST", "/predict", {"data": [1, 2, 3, 4]})
    assert answer["class"] in answer["probabilities"]
    assert abs(sum(answer["probabilities"].values()) - 1) < 1e-6


def a14(site: Journey) -> None:
    """Each item of a batch gets its answer, in order; one wrong item refuses the whole batch."""
    items = [{"text": "I love it."}, {"data": [5.1, 3.5, 1.4, 0.2]}, {"text": "I hate it."}]
    answer = ok(site, "POST", "/predict/batch", {"items": items})
    assert answer["count"] == len(items)
    assert answer["predictions"] == [ok(site, "POST", "/predict", item) for item in items]
    status, _, answer = site.request("POST", "/predict/batch", {"items": [*items, {"data": [1]}]})
    assert status == 422
    assert answer["errors"][0]["field"] == "items.3.data"
    assert site.request("POST", "/predict/batch", {"items": []})[0] == 422


def a15(site: Journey) -> None:
    assert ok(site, "GET", "/predict") == {"score": 0.75}


def a16(site: Journey) -> None:
    models = ok(site, "GET", "/model/info")["models"]
    assert len(models) >= 2
    for model in models:
        assert model["name"]
        assert model["version"]
        assert model["labels"]
        assert model["trained_at"]
        assert len(model["sha256"]) == 64


def a17(site: Journey) -> None:
    name = f"e2e-{uuid.uuid4()}"
    stored = ok(site, "POST", "/items", {"name": name}, 201)
    assert stored["name"] == name
    listed = ok(site, "GET", "/items")
    assert name in json.dumps(listed)


def a18(site: Journey) -> None:
    """The API's documentation page loads nothing from outside this site."""
    status, _, document = site.request("GET", "/openapi.json", key=False)
    assert status == 200
    assert {"/predict", "/items", "/api/v1/jobs/trigger"} <= set(document["paths"])
    status, _, page = site.request("GET", "/docs", key=False)
    assert status == 200
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert loaded
    for path in loaded:
        assert path.startswith("/"), f"/docs loads {path}"
        assert site.request("GET", path, key=False)[0] == 200


ROWS: dict[str, Callable[[Journey], None]] = {
    "A1": alive("/health"),
    "A2": alive("/healthz"),
    "A3": alive("/health/live"),
    "A4": a4,
    "A5": a5,
    "A6": a6,
    "A7": a7,
    "A7-api": a7_api,
    "A8": a8,
    "A9": a9,
    "A11": a11,
    "A10": a10,
    "A12": a12,
    "A13": a13,
    "A14": a14,
    "A15": a15,
    "A16": a16,
    "A17": a17,
    "A18": a18,
}


@pytest.mark.parametrize("row", ROWS)
def test_row(installed: Journey, row: str) -> None:
    ROWS[row](installed)


GUARDED = [
    ("POST", "/predict", {"text": "x"}),
    ("GET", "/predict", None),
    ("GET", "/model/info", None),
    ("GET", "/items", None),
    ("POST", "/items", {"name": "x"}),
    ("POST", "/api/v1/jobs/trigger", {"source_type": "file", "config": {}}),
    ("GET", f"/api/v1/jobs/status/{uuid.UUID(int=0)}", None),
    ("GET", f"/api/v1/jobs/result/{uuid.UUID(int=0)}", None),
    ("GET", f"/api/v1/jobs/{uuid.UUID(int=0)}/report", None),
    ("GET", "/api/v1/jobs", None),
    ("POST", f"/api/v1/jobs/{uuid.UUID(int=0)}/cancel", None),
]


@pytest.mark.parametrize(("method", "path", "body"), GUARDED)
def test_nothing_without_a_key(installed: Journey, method: str, path: str, body: object) -> None:
    for headers in ({}, {"X-API-Key": "wrong"}):
        status, got, answer = installed.request(method, path, body, key=False, headers=headers)
        assert status == 401, answer
        assert got["Content-Type"].startswith("application/problem+json")


def test_validation_names_the_field(installed: Journey) -> None:
    status, headers, answer = installed.request("POST", "/predict", {"text": 5})
    assert status == 422
    assert headers["Content-Type"].startswith("application/problem+json")
    assert "text" in json.dumps(answer)


def test_plain_http_points_to_https(installed: Journey) -> None:
    code = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=10)
connection.request("GET", "/health?x=1", headers={"Host": sys.argv[1]})
answer = connection.getresponse()
print(answer.status, answer.getheader("Location"))
"""
    edge = address("edge-1")
    answer = installed.lab.python("router", code, edge).output.split()
    assert answer == ["308", f"https://{edge}/health?x=1"]


def test_both_app_hosts_serve(installed: Journey) -> None:
    before = {host: requests_of(installed.lab, host) for host in ("app-1", "app-2")}
    for _ in range(20):
        assert installed.request("GET", "/predict")[0] == 200
    for host, count in before.items():
        assert requests_of(installed.lab, host) > count, f"{host} got no request"


def requests_of(lab: Lab, host: str) -> int:
    """Return how many requests an app host has logged."""
    return int(
        lab.console(host, "docker logs airlift-app-blue 2>&1 | grep -c /predict || :").output
    )
