"""Every row of the contract that this release offers, asked through Nginx on the installed site."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from scripts.journey import Journey
from scripts.lab import Lab
from tests.e2e.support import PORTS, address

Site = Journey

#: Runs on a machine: answers every GET with a few reviews, as a client's own API would.
_API = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps([{"text": "splendid"}, {"text": "awful"}]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8088), Handler)
import threading
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def ok(site: Site, method: str, path: str, body: object = None, status: int = 200) -> Any:
    """Send a request, expect a status, return the answer."""
    got, _, answer = site.request(method, path, body)
    assert got == status, answer
    return answer


def metrics_of(site: Site, host: str) -> str:
    """Read the metrics of an app host as Prometheus does, from the monitor zone."""
    code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    url = f"http://{address(host)}:{PORTS['app_blue']}/metrics"
    return site.lab.python("monitor-1", code, url).output


def alive(path: str) -> Callable[[Site], None]:
    """Return the check of a liveness path."""

    def check(site: Site) -> None:
        status, _, answer = site.request("GET", path, key=False)
        assert status == 200
        assert answer["status"] == "ok"

    return check


def a4(site: Site) -> None:
    status, _, answer = site.request("GET", "/health/ready", key=False)
    assert status == 200
    assert answer["status"] == "ready"
    assert set(answer["checks"].values()) == {"ok"}
    assert answer["release"] == site.facts.manifest["version"]


def a5(site: Site) -> None:
    """Clients may not read metrics; the monitor zone may."""
    assert site.request("GET", "/metrics", key=True)[0] == 403
    fetch = (
        "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
    )
    url = f"http://{address('app-1')}:{PORTS['app_blue']}/metrics"
    text = site.lab.python("monitor-1", fetch, url).output
    for name in ("app_requests_total", "app_request_latency_seconds_bucket", "app_errors_total"):
        assert name in text


def a6(site: Site) -> None:
    answer = ok(site, "GET", "/")
    assert answer["service"]
    assert answer["colour"] == "blue"
    assert answer["docs"]


def a7(site: Site) -> None:
    """A file job and an api job; a repeated key gets the same job."""
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


def a7_api(site: Site) -> None:
    url = "http://172.30.2.254:8088/reviews"
    with site.lab.running("router", _API):
        job = {"source_type": "api", "config": {"url": url}}
        accepted = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)
        status, result = site.result_of(accepted["job_id"])
        assert status == 200
        assert result["result"]
    refused = {"source_type": "api", "config": {"url": "http://172.30.3.10:5432/"}}
    assert site.request("POST", "/api/v1/jobs/trigger", refused)[0] == 422


def a8(site: Site) -> None:
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


def a9(site: Site) -> None:
    """A job that cannot succeed says so; an unknown one is a 404."""
    job = {"source_type": "file", "config": {"root": "inbox", "path": "not-there.csv"}}
    accepted = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)
    status, answer = site.result_of(accepted["job_id"], seconds=120)
    assert status == 409
    assert "not-there.csv" in json.dumps(answer)
    assert site.request("GET", f"/api/v1/jobs/result/{uuid.uuid4()}")[0] == 404


def a11(site: Site) -> None:
    """The report in each form; a format that is none is named."""
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


def b8_database(site: Site) -> None:
    """The site's own Postgres as a source: reading works, writing makes the job dead."""
    ok(site, "POST", "/items", {"name": "splendid"}, 201)
    query = "SELECT id, name FROM items ORDER BY id DESC LIMIT 5"
    config = {"source": "own", "query": query, "text_field": "name"}
    accepted = ok(
        site, "POST", "/api/v1/jobs/trigger", {"source_type": "database", "config": config}, 202
    )
    status, result = site.result_of(accepted["job_id"])
    assert status == 200
    assert result["result"]["sentiment"]["classified"] > 0
    for query in ("DELETE FROM items", "SELECT client FROM items", "SELECT 1; SELECT 2"):
        job = {"source_type": "database", "config": {"source": "own", "query": query}}
        accepted = ok(site, "POST", "/api/v1/jobs/trigger", job, 202)
        status, answer = site.result_of(accepted["job_id"])
        assert (status, answer["type"]) == (409, "urn:airlift:problem:job-dead")


def b8_blocked(site: Site) -> None:
    """No job may reach the site's own machines."""
    for url in (
        "http://127.0.0.1/",
        "http://169.254.169.254/",
        "http://[::ffff:172.30.3.10]:5432/",
        "http://2130706433/",
    ):
        job = {"source_type": "api", "config": {"url": url}}
        status, _, answer = site.request("POST", "/api/v1/jobs/trigger", job)
        assert status == 422
        assert answer["errors"][0]["code"] == "blocked_address"


def a10(site: Site) -> None:
    """A job whose source is away is cancelled between its attempts; it is in the list."""
    job = {"source_type": "api", "config": {"url": "http://172.30.2.254:8088/away"}}
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


def a12(site: Site) -> None:
    good = ok(site, "POST", "/predict", {"text": "This is wonderful, I love it."})
    bad = ok(site, "POST", "/predict", {"text": "This is terrible, I hate it."})
    assert (good["label"], bad["label"]) == ("positive", "negative")
    assert 0.5 <= good["probability"] <= 1


def a13(site: Site) -> None:
    answer = ok(site, "POST", "/predict", {"data": [1, 2, 3, 4]})
    assert answer["class"] in answer["probabilities"]
    assert abs(sum(answer["probabilities"].values()) - 1) < 1e-6


def a15(site: Site) -> None:
    assert ok(site, "GET", "/predict") == {"score": 0.75}


def a16(site: Site) -> None:
    models = ok(site, "GET", "/model/info")["models"]
    assert len(models) >= 2
    for model in models:
        assert model["name"]
        assert model["version"]
        assert model["labels"]
        assert model["trained_at"]
        assert len(model["sha256"]) == 64


def a17(site: Site) -> None:
    name = f"e2e-{uuid.uuid4()}"
    stored = ok(site, "POST", "/items", {"name": name}, 201)
    assert stored["name"] == name
    listed = ok(site, "GET", "/items")
    assert name in json.dumps(listed)


def b1(site: Site) -> None:
    """A key with a limit of its own is refused after it, on whichever host; others are not."""
    headers = {"X-API-Key": site.limited_key()}
    seen: list[int] = []
    for _ in range(12):
        status, got, answer = site.request("GET", "/predict", key=False, headers=headers)
        seen.append(status)
        got = {name.lower(): value for name, value in got.items()}
        assert got["ratelimit-limit"] == "5"
    # An earlier run may have used some of it up.
    assert 429 in seen[:6]
    assert set(seen[seen.index(429) :]) == {429}, answer
    assert 1 <= int(got["retry-after"]) <= 65
    assert got["content-type"] == "application/problem+json"
    assert ok(site, "GET", "/predict")
    assert site.request("GET", "/health", key=False, headers=headers)[0] == 200


def b1_address(site: Site) -> None:
    """The service knows the client's address from Nginx, and from nobody else."""
    request_id = f"e2e-{uuid.uuid4()}"
    forged = {"X-Request-ID": request_id, "X-Forwarded-For": "203.0.113.9"}
    assert site.request("GET", "/predict", headers=forged)[0] == 200
    (line,) = [
        json.loads(line)
        for host in ("app-1", "app-2")
        for line in site.lab.console(
            host, 'docker logs --since 5m airlift-app-blue 2>&1 | grep "$1" || :', request_id
        ).output.splitlines()
    ]
    assert line["peer"] not in ("203.0.113.9", address("edge-1"))


def scope_of_a_key(site: Site) -> None:
    """A key is good for what its entry says; this one may be used up, which is said first."""
    headers = {"X-API-Key": site.limited_key()}
    status, _, answer = site.request("GET", "/items", key=False, headers=headers)
    assert (status, answer.get("scope")) in ((403, "items"), (429, None))


def b4(site: Site) -> None:
    """One JSON object a line; never a body, a key or a secret."""
    marker = f"marker-{uuid.uuid4()}"
    request_id = f"e2e-{uuid.uuid4()}"
    body = {"text": marker}
    status, headers, _ = site.request(
        "POST", "/predict", body, headers={"X-Request-ID": request_id}
    )
    assert status == 200
    assert {name.lower(): value for name, value in headers.items()}["x-request-id"] == request_id
    texts = [
        site.lab.console(host, "docker logs --since 5m airlift-app-blue 2>&1").output
        for host in ("app-1", "app-2")
    ]
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.strip()]
    mine = [line for line in lines if line.get("request_id") == request_id]
    assert len(mine) == 1
    assert {"timestamp", "level", "request_id", "route", "status"} <= set(mine[0])
    everything = "".join(texts)
    assert marker not in everything
    assert (site.cache / "api-key").read_text() not in everything


def b5(site: Site) -> None:
    """Each request is counted once, whichever process and host answered."""
    before = counted(site)
    for _ in range(40):
        ok(site, "GET", "/predict")
    assert counted(site) - before == 40


def counted(site: Site) -> int:
    """Return how many baseline requests the app hosts have counted."""
    total = 0.0
    for host in ("app-1", "app-2"):
        for line in metrics_of(site, host).splitlines():
            if line.startswith("app_requests_total{") and 'endpoint="/predict"' in line:
                total += float(line.rpartition(" ")[2]) if 'method="GET"' in line else 0
    return int(total)


def b6(site: Site) -> None:
    """Both hosts serve the very same models."""
    seen = {json.dumps(ok(site, "GET", "/model/info"), sort_keys=True) for _ in range(8)}
    assert len(seen) == 1


def b9(site: Site) -> None:
    """Secrets come from files and addresses carry no password."""
    for host in ("app-1", "app-2"):
        environment = json.loads(
            site.lab.console(
                host, "docker inspect -f '{{json .Config.Env}}' airlift-app-blue"
            ).output
        )
        urls = [item for item in environment if "://" in item]
        assert urls
        assert [url for url in urls if re.search(r"://[^/]*:[^/]*@", url)] == []
        names = site.lab.console(host, "docker exec airlift-app-blue ls /run/secrets").output
        assert {"database_password", "redis_password"} <= set(names.split())


ROWS: dict[str, Callable[[Site], None]] = {
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
    "A15": a15,
    "A16": a16,
    "A17": a17,
    "keys-scope": scope_of_a_key,
    "B1": b1,
    "B1-address": b1_address,
    "B4": b4,
    "B5": b5,
    "B6": b6,
    "B8-database": b8_database,
    "B8-blocked": b8_blocked,
    "B9": b9,
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
