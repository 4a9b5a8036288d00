"""Each behaviour of the contract, tested through Nginx on the installed site."""

from __future__ import annotations

import json
import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest

from scripts.journey import EDGE, Journey
from tests.e2e.support import API, API_URL, address, metrics_of, ok
from tests.hostile import FOR_EVERYBODY, FOR_ONE, MARK

APP_HOSTS = ("app-1", "app-2")


def b1(site: Journey) -> None:
    """A key with its own limit is refused above that limit on every host; other keys are not."""
    headers = {"X-API-Key": site.limited_key()}
    seen: list[int] = []
    for _ in range(12):
        status, got, answer = site.request("GET", "/predict", key=False, headers=headers)
        seen.append(status)
        got = {name.lower(): value for name, value in got.items()}
        assert got["ratelimit-limit"] == "5"
    # An earlier run may have used a part of the limit.
    assert 429 in seen[:6]
    assert set(seen[seen.index(429) :]) == {429}, answer
    assert 1 <= int(got["retry-after"]) <= 65
    assert got["content-type"] == "application/problem+json"
    assert ok(site, "GET", "/predict")
    assert site.request("GET", "/health", key=False, headers=headers)[0] == 200


def b1_address(site: Journey) -> None:
    """The service takes the client's address from Nginx only."""
    request_id = f"e2e-{uuid.uuid4()}"
    forged = {"X-Request-ID": request_id, "X-Forwarded-For": "203.0.113.9"}
    assert site.request("GET", "/predict", headers=forged)[0] == 200
    (line,) = [
        json.loads(line)
        for host in APP_HOSTS
        for line in site.lab.console(
            host, 'docker logs --since 5m airlift-app-blue 2>&1 | grep "$1" || :', request_id
        ).output.splitlines()
    ]
    assert line["peer"] not in ("203.0.113.9", address("edge-1"))


def scope_of_a_key(site: Journey) -> None:
    """A key is valid for its scopes only; a used-up limit is reported before a missing scope."""
    headers = {"X-API-Key": site.limited_key()}
    status, _, answer = site.request("GET", "/items", key=False, headers=headers)
    assert (status, answer.get("scope")) in ((403, "items"), (429, None))


def b2(site: Journey) -> None:
    """A repeated text is answered from the cache of each process, with the same answer."""
    body = {"text": f"a splendid day {uuid.uuid4()}"}
    answers, seen = [], []
    # Two hosts have two processes each, so the fifth request gets a cached answer at the latest.
    for _ in range(5):
        status, headers, answer = site.request("POST", "/predict", body)
        assert status == 200
        answers.append(answer)
        seen.append({name.lower(): value for name, value in headers.items()}["cache-status"])
    assert seen[0] == "predictions; fwd=miss"
    assert "predictions; hit" in seen
    assert all(answer == answers[0] for answer in answers)


def b4(site: Journey) -> None:
    """Logs have one JSON object per line, and never a body, a key or a secret."""
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
        for host in APP_HOSTS
    ]
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.strip()]
    mine = [line for line in lines if line.get("request_id") == request_id]
    assert len(mine) == 1
    assert {"timestamp", "level", "request_id", "route", "status"} <= set(mine[0])
    everything = "".join(texts)
    assert marker not in everything
    assert (site.cache / "api-key").read_text() not in everything


def b5(site: Journey) -> None:
    """Each request is counted once, by whichever process and host answered it."""
    before = counted(site)
    for _ in range(40):
        ok(site, "GET", "/predict")
    assert counted(site) - before == 40


def counted(site: Journey) -> int:
    """Return how many baseline requests the app hosts have counted."""
    total = 0.0
    for host in APP_HOSTS:
        for line in metrics_of(site, host).splitlines():
            if line.startswith("app_requests_total{") and 'endpoint="/predict"' in line:
                total += float(line.rpartition(" ")[2]) if 'method="GET"' in line else 0
    return int(total)


def b6(site: Journey) -> None:
    """Both hosts serve the very same models."""
    seen = {json.dumps(ok(site, "GET", "/model/info"), sort_keys=True) for _ in range(8)}
    assert len(seen) == 1


def b7(site: Journey) -> None:
    """Both workers are killed while they run jobs; each job still ends exactly once."""
    with site.lab.running("router", API, "2"):
        job = {"source_type": "api", "config": {"url": f"{API_URL}/reviews"}}
        accepted = [ok(site, "POST", "/api/v1/jobs/trigger", job, 202)["job_id"] for _ in range(12)]
        time.sleep(1)
        for host in APP_HOSTS:
            state = "docker inspect -f '{{.State.Pid}}' airlift-worker-blue"
            site.lab.console(host, f'kill -9 "$({state})"')
        for identity in accepted:
            status, answer = site.result_of(identity, seconds=120)
            assert (status, answer["status"]) == (200, "succeeded")
        attempts = [
            ok(site, "GET", f"/api/v1/jobs/status/{identity}")["attempts"] for identity in accepted
        ]
    assert max(attempts) > 1, "no job was killed"


def b8_database(site: Journey) -> None:
    """The site's own Postgres as a source: reading works, and a job that writes is dead."""
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


def b8_blocked(site: Journey) -> None:
    """No job can reach the site's own machines."""
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


def b9(site: Journey) -> None:
    """Secrets come from files and addresses carry no password."""
    for host in APP_HOSTS:
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


def b12(site: Journey) -> None:
    """A worker runs more jobs at once while the queue is old, and fewer again when it is empty."""
    with site.lab.running("router", API, "3"):
        job = {"source_type": "api", "config": {"url": f"{API_URL}/reviews"}}
        accepted = [ok(site, "POST", "/api/v1/jobs/trigger", job, 202)["job_id"] for _ in range(30)]
        assert reaches(site, lambda numbers: max(numbers) > 2)
        for identity in accepted:
            assert site.result_of(identity, seconds=120)[0] == 200
    assert reaches(site, lambda numbers: max(numbers) == 2)


def reaches(site: Journey, wanted: Callable[[list[float]], bool]) -> bool:
    """Return whether the workers' concurrency reaches the expected value in time."""
    pattern = re.compile(r"^app_worker_concurrency(?:{.*})? (\S+)$", re.MULTILINE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        texts = [metrics_of(site, host, "worker_blue") for host in APP_HOSTS]
        if wanted([float(number) for text in texts for number in pattern.findall(text)]):
            return True
        time.sleep(0.5)
    return False


ROWS: dict[str, Callable[[Journey], None]] = {
    "keys-scope": scope_of_a_key,
    "B1": b1,
    "B1-address": b1_address,
    "B2": b2,
    "B4": b4,
    "B5": b5,
    "B6": b6,
    "B7": b7,
    "B8-database": b8_database,
    "B8-blocked": b8_blocked,
    "B9": b9,
    "B12": b12,
}


@pytest.mark.parametrize("row", ROWS)
def test_row(installed: Journey, row: str) -> None:
    ROWS[row](installed)


@pytest.fixture(scope="module")
def client(installed: Journey) -> Iterator[httpx.Client]:
    """A client that sends bytes as they are."""
    trusted = ssl.create_default_context(cafile=str(installed.cache / "ca.pem"))
    headers = {
        "X-API-Key": (installed.cache / "api-key").read_text(),
        "Content-Type": "application/json",
    }
    with httpx.Client(base_url=EDGE, verify=trusted, headers=headers, timeout=30) as client:
        yield client


def refused(answer: httpx.Response, field: str = "") -> None:
    """A 4xx answer has the service's form, whether Nginx or the service gives it."""
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["request_id"]
    # Answers show this field only to repeat what the client sent.
    assert field == MARK or MARK not in answer.text


@pytest.mark.parametrize("name", FOR_EVERYBODY)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_b3_no_body_of_any_form_passes(client: httpx.Client, name: str, chunked: bool) -> None:
    content = FOR_EVERYBODY[name][0]
    parts = (content[at : at + 65_536] for at in range(0, len(content), 65_536))
    refused(client.post("/predict", content=parts if chunked else content))


@pytest.mark.parametrize(
    ("status", "path", "headers"),
    [
        pytest.param(431, "/predict", {"X-Large": "a" * 9_000}, id="header"),
        pytest.param(431, "/predict", {f"X-{n}": "a" * 4_000 for n in range(10)}, id="headers"),
        pytest.param(414, "/predict?q=" + "a" * 9_000, {}, id="request line"),
    ],
)
def test_a_head_that_is_too_large_is_refused_at_the_edge(
    client: httpx.Client, status: int, path: str, headers: dict[str, str]
) -> None:
    answer = client.get(path, headers=headers)
    assert answer.status_code == answer.json()["status"] == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize("number", range(len(FOR_ONE)))
def test_a_field_that_is_wrong_is_named(client: httpx.Client, number: int) -> None:
    path, body, field = FOR_ONE[number]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(path, content=content)
    refused(answer, field)
    assert field in ("?", *(error["field"] for error in answer.json()["errors"]))
