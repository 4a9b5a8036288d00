"""Jobs on real processes are accepted, run, and never lost."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.app.appkit import Process, Site, eventually, sample
from tests.unit.app.gate import Gate, allow

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def gates() -> Iterator[Gate]:
    with Gate.start() as gate:
        yield gate


@pytest.fixture(scope="module")
def web(shared: Site, gates: Gate) -> Process:
    return shared.serve(**allow(gates), JOB_MAX_ATTEMPTS="3")


@pytest.fixture(scope="module")
def worker(shared: Site, gates: Gate) -> Process:
    return shared.worker(**allow(gates))


def start(web: Process, gate: Gate, path: str = "/hold") -> str:
    answer = web.http.post("/api/v1/jobs/trigger", json=gate.trigger(path))
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["job_id"]
    return job


def test_a_file_is_collected_classified_and_summed_up(
    shared: Site, web: Process, worker: Process
) -> None:
    answer = web.http.post(
        "/api/v1/jobs/trigger",
        json={"source_type": "file", "config": {"root": "inbox", "path": "reviews.csv"}},
    )
    assert answer.status_code == 202
    body = answer.json()
    assert body["status"] == "queued"
    assert answer.headers["location"] == body["status_url"]
    status = shared.wait_for(web, body["job_id"], "succeeded")
    assert status["attempts"] == 1
    assert status["progress"] == {"processed": 3, "total": 3}
    assert status["created_at"] <= status["started_at"] <= status["finished_at"]
    result = web.http.get(body["result_url"])
    assert result.status_code == 200
    found = result.json()["result"]
    assert found["sentiment"]["counts"] == {"negative": 1, "neutral": 0, "positive": 1}
    assert found["records"]["skipped"] == {"no text": 1}
    assert list(found)[:2] == ["source", "records"]
    with shared.connect() as connection:
        row = connection.execute(
            "SELECT request_id, payload_version FROM jobs WHERE id = %s", (body["job_id"],)
        ).fetchone()
    assert row == (answer.headers["x-request-id"], 1)


def test_a_hint_wakes_a_worker_that_looks_once_a_minute(site: Site) -> None:
    # Redis can be slow on a busy machine, and a wake-up message that timed out wakes nobody.
    patient = {"REDIS_TIMEOUT_SECONDS": "10"}
    web = site.serve(**patient)
    site.worker(WORKER_POLL_SECONDS="60", **patient)
    # A starting worker may miss the first messages, so trigger jobs until one arrives.
    asked: list[str] = []

    def finished(job: str) -> bool:
        return bool(web.http.get(f"/api/v1/jobs/status/{job}").json()["status"] == "succeeded")

    while not any(map(finished, asked)):
        asked.append(site.trigger(web))
        time.sleep(2)
    eventually(lambda: all(map(finished, asked)), seconds=80)
    site.wait_for(web, site.trigger(web), "succeeded", seconds=30)


def test_a_running_job_answers_202(
    shared: Site, web: Process, worker: Process, gates: Gate
) -> None:
    job = start(web, gates)
    gates.wait_for_request()
    answer = web.http.get(f"/api/v1/jobs/result/{job}")
    assert answer.status_code == 202
    assert answer.json()["status"] == "running"
    assert answer.headers["retry-after"]
    gates.opened.set()
    shared.wait_for(web, job, "succeeded")


def test_a_job_that_can_never_work_fails_at_once(
    shared: Site, web: Process, worker: Process
) -> None:
    job = shared.trigger(web, "missing.csv")
    status = shared.wait_for(web, job, "failed")
    assert status["attempts"] == 1
    assert status["error"]["code"] == "file-not-found"
    answer = web.http.get(f"/api/v1/jobs/result/{job}")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert "missing.csv" in answer.json()["detail"]


@pytest.mark.slow
def test_a_source_that_keeps_failing_ends_as_dead(
    shared: Site, web: Process, worker: Process, gates: Gate
) -> None:
    asked, retried = gates.asked, sample(worker, 'app_jobs_finished_total{outcome="retried"')
    job = start(web, gates, "/fail")
    status = shared.wait_for(web, job, "dead")
    assert status["attempts"] == status["max_attempts"] == 3
    assert status["error"]["code"] == "source-status"
    assert gates.asked == asked + 3
    assert web.http.get(f"/api/v1/jobs/result/{job}").status_code == 409
    assert sample(worker, 'app_jobs_finished_total{outcome="retried"') == retried + 2
    eventually(lambda: sample(worker, 'app_jobs{state="dead"}') == 1)


def test_an_unknown_job_is_404(web: Process) -> None:
    for kind in ("status", "result"):
        answer = web.http.get(f"/api/v1/jobs/{kind}/{uuid.uuid4()}")
        assert answer.status_code == 404
        assert answer.json()["type"].endswith("job-unknown")


def test_the_same_key_gets_the_same_job(shared: Site, web: Process) -> None:
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: shared.trigger(web, **{"idempotency-key": key}), range(16)))
    assert len(set(jobs)) == 1
    assert shared.one("SELECT count(*) FROM jobs WHERE id = %s", jobs[0]) == 1
    again = web.http.post(
        "/api/v1/jobs/trigger",
        json={"config": {"path": "reviews.csv", "root": "inbox"}, "source_type": "file"},
        headers={"idempotency-key": key},
    )
    assert again.json()["job_id"] == jobs[0]
    assert again.headers["idempotent-replayed"] == "true"


def test_a_key_with_another_body_is_refused(shared: Site, web: Process) -> None:
    before = shared.one("SELECT count(*) FROM jobs")
    headers = {"idempotency-key": str(uuid.uuid4())}
    shared.trigger(web, **headers)
    answer = web.http.post(
        "/api/v1/jobs/trigger",
        json={"source_type": "file", "config": {"root": "inbox", "path": "other.csv"}},
        headers=headers,
    )
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("idempotency-key-reused")
    assert shared.one("SELECT count(*) FROM jobs") == before + 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "ä"])
def test_a_strange_key_is_refused(web: Process, key: str) -> None:
    answer = web.http.post(
        "/api/v1/jobs/trigger",
        json={"source_type": "file", "config": {"root": "inbox", "path": "reviews.csv"}},
        headers=[(b"idempotency-key", key.encode())],
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


def test_what_no_worker_can_run_waits_for_one_that_can(
    shared: Site, web: Process, worker: Process
) -> None:
    unknown, elsewhere = uuid.uuid4(), uuid.uuid4()
    with shared.connect() as connection:
        for job, version, needs in ((unknown, 99, None), (elsewhere, 1, "root:another-host")):
            connection.execute(
                """INSERT INTO jobs (id, client, source_type, payload_version, config, needs,
                       max_attempts) VALUES (%s, 'x', 'file', %s, '{}', %s, 5)""",
                (job, version, needs),
            )
    shared.wait_for(web, shared.trigger(web), "succeeded")
    for job in (unknown, elsewhere):
        assert web.http.get(f"/api/v1/jobs/status/{job}").json()["status"] == "queued"
    eventually(lambda: sample(web, "app_jobs_queue_age_seconds") > 0, seconds=25)
