"""B12 and operations: concurrency follows the queue, backlog, and request ids in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from app.jobs.concurrency import Concurrency
from app.settings import ConfigurationError, Settings
from tests.unit.app.appkit import Client, Process, Site, eventually, sample
from tests.unit.app.gate import Gate


def test_b12_concurrency_grows_while_jobs_wait_and_every_place_is_taken() -> None:
    concurrency = Concurrency(2, 8, target_seconds=5)
    seen = []
    for _ in range(5):
        concurrency.adapt(waited=6, running=concurrency.limit)
        seen.append(concurrency.limit)
    assert seen == [3, 4, 6, 8, 8]


@pytest.mark.parametrize(
    ("waited", "running"),
    [(4.9, 4), (6, 3), (0.1, 3), (0, 4)],
    ids=["short waits", "room left", "something waits", "no place is free"],
)
def test_b12_concurrency_stays(waited: float, running: int) -> None:
    concurrency = Concurrency(2, 8, target_seconds=5)
    concurrency.limit = 4
    assert not concurrency.adapt(waited, running)
    assert concurrency.limit == 4


def test_b12_concurrency_shrinks_to_its_lower_bound_when_nothing_waits() -> None:
    concurrency = Concurrency(2, 8, target_seconds=5)
    concurrency.limit = 4
    seen = []
    for _ in range(4):
        concurrency.adapt(waited=0, running=0)
        seen.append(concurrency.limit)
    assert seen == [3, 2, 2, 2]


@pytest.mark.parametrize("bounds", [{"MIN": "5"}, {"MIN": "3", "MAX": "2"}])
def test_b12_bounds_in_the_wrong_order_are_refused(
    bounds: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bounds.items():
        monkeypatch.setenv(f"WORKER_CONCURRENCY_{name}", value)
    with pytest.raises(ConfigurationError, match=r"WORKER_CONCURRENCY_MAX: .*must not be below"):
        Settings.load()


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate.start() as gate:
        yield gate


def start(web: Process, gate: Gate) -> str:
    answer = web.http.post("/api/v1/jobs/trigger", json=gate.trigger())
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["job_id"]
    return job


@pytest.mark.docker
@pytest.mark.slow
def test_b12_a_worker_takes_more_at_once_while_jobs_wait(site: Site, gate: Gate) -> None:
    allowed = {"API_SOURCES_ALLOWED": json.dumps([gate.address])}
    web = site.serve(**allowed)
    worker = site.worker(
        **allowed,
        WORKER_CONCURRENCY_MIN="1",
        WORKER_CONCURRENCY_MAX="3",
        WORKER_QUEUE_AGE_SECONDS="0.3",
    )
    assert sample(worker, "app_worker_concurrency") == 1
    # A job that this worker cannot run must not raise its concurrency.
    with site.connect() as connection:
        connection.execute(
            """INSERT INTO jobs (id, client, source_type, payload_version, config, max_attempts,
                   needs) VALUES (gen_random_uuid(), 'x', 'file', 1, '{}', 5, 'root:elsewhere')"""
        )
    jobs = [start(web, gate) for _ in range(5)]
    for _ in range(3):
        gate.wait_for_request()
    assert sample(worker, "app_worker_concurrency") == 3
    assert sample(worker, "app_worker_jobs_running") == 3
    assert not gate.waiting.acquire(timeout=1.5), "more at once than the upper bound"
    gate.opened.set()
    for job in jobs:
        site.wait_for(web, job, "succeeded")
    eventually(lambda: sample(worker, "app_worker_concurrency") == 1)
    assert sample(worker, "app_worker_jobs_running") == 0


@pytest.mark.docker
@pytest.mark.slow
def test_a4_an_old_backlog_degrades_readiness_but_does_not_end_it(site: Site) -> None:
    limit = {"QUEUE_AGE_DEGRADED_SECONDS": "0.5"}
    web = site.serve(**limit)
    assert web.http.get("/health/ready").json()["status"] == "ready"
    job = site.trigger(web)

    def degraded(process: Process) -> bool:
        answer = process.http.get("/health/ready")
        assert answer.status_code == 200
        body = answer.json()
        # Another check may fail briefly on a busy machine, which also means degraded.
        old = "has been due for" in body["checks"]["queue"]
        assert body["status"] == "degraded" or not old
        return old

    eventually(lambda: degraded(web), seconds=25)
    worker = site.worker(**limit)
    site.wait_for(web, job, "succeeded")
    eventually(lambda: not degraded(worker))
    eventually(lambda: not degraded(web), seconds=25)
    eventually(lambda: web.http.get("/health/ready").json()["status"] == "ready", seconds=25)


@pytest.mark.docker
@pytest.mark.slow
def test_readiness_answers_in_time_while_postgres_is_frozen(site: Site) -> None:
    web, worker = site.serve(), site.worker()
    with site.postgres.frozen():
        for process in (web, worker):
            answer = process.http.get("/health/ready", timeout=6)
            assert answer.status_code == 503
            assert answer.json()["checks"]["postgres"].startswith("not available")
            assert process.http.get("/health/live", timeout=1).status_code == 200
    eventually(lambda: web.http.get("/health/ready").status_code == 200, seconds=40)
    site.wait_for(web, site.trigger(web), "succeeded", seconds=40)


@pytest.mark.docker
@pytest.mark.slow
def test_processes_that_start_before_postgres_wait_for_it(site: Site) -> None:
    site.postgres.down()
    try:
        web, worker = site.serve(), site.worker()
        for process in (web, worker):
            assert process.http.get("/health/ready").status_code == 503
    finally:
        site.postgres.up()
    site.wait_for(
        web,
        eventually(lambda: _accepted(web), seconds=40),
        "succeeded",
    )
    assert worker.popen.poll() is None


def _accepted(web: Process) -> str | None:
    answer = web.http.post(
        "/api/v1/jobs/trigger",
        json={"source_type": "file", "config": {"root": "inbox", "path": "reviews.csv"}},
    )
    return answer.json()["job_id"] if answer.status_code == 202 else None


@pytest.mark.docker
@pytest.mark.slow
def test_b4_a_requests_id_follows_its_job_into_the_workers_log(site: Site) -> None:
    web, worker = site.serve(), site.worker()
    job = site.trigger(web, **{"x-request-id": "follow-me-0001"})
    missing = site.trigger(web, "missing.csv", **{"x-request-id": "follow-me-0002"})
    site.wait_for(web, job, "succeeded")
    site.wait_for(web, missing, "failed")
    eventually(lambda: len(worker.logged("job attempt ended")) == 2)
    lines = [line for line in worker.lines() if "job_id" in line]
    assert {line["event"] for line in lines} == {"job started", "job failed", "job attempt ended"}
    expected = {job: "follow-me-0001", missing: "follow-me-0002"}
    for line in lines:
        assert line["request_id"] == expected[line["job_id"]]
    others = [line for line in worker.lines() if "job_id" not in line]
    assert not [line for line in others if "request_id" in line], (
        "a line without a job has a request id"
    )


@pytest.mark.docker
@pytest.mark.slow
def test_b5_the_metrics_of_a_jobs_life(site: Site, gate: Gate) -> None:
    allowed = {"API_SOURCES_ALLOWED": json.dumps([gate.address])}
    web = site.serve(**allowed, JOB_MAX_ATTEMPTS="2")
    worker = site.worker(**allowed)
    done = site.trigger(web)
    dead = web.http.post("/api/v1/jobs/trigger", json=gate.trigger("/fail")).json()["job_id"]
    site.wait_for(web, done, "succeeded")
    site.wait_for(web, dead, "dead")
    eventually(lambda: len(worker.logged("job attempt ended")) == 3)
    held = start(web, gate)
    gate.wait_for_request()
    web.http.post(f"/api/v1/jobs/{held}/cancel")
    assert sample(web, "app_jobs_accepted_total") == 3
    assert sample(web, 'app_jobs_cancelled_total{source_type="api"}') == 1
    for outcome, kind in (("succeeded", "file"), ("retried", "api"), ("dead", "api")):
        series = f'app_jobs_finished_total{{outcome="{outcome}",source_type="{kind}"}}'
        assert sample(worker, series) == 1, series
    eventually(lambda: sample(worker, 'app_jobs_finished_total{outcome="cancelled"') == 1)
    assert sample(worker, "app_job_duration_seconds_count") == 4
    eventually(lambda: sample(worker, 'app_jobs{state="dead"}') == 1)


@pytest.mark.docker
@pytest.mark.slow
def test_b5_a_killed_workers_attempt_is_counted_by_the_sweeper(site: Site, gate: Gate) -> None:
    allowed = {"API_SOURCES_ALLOWED": json.dumps([gate.address]), "JOB_LEASE_SECONDS": "1"}
    web = site.serve(**allowed, JOB_MAX_ATTEMPTS="1")
    doomed = site.worker(**allowed)
    answer = web.http.post(
        "/api/v1/jobs/trigger", json=gate.trigger(), headers={"x-request-id": "follow-me-0003"}
    )
    gate.wait_for_request()
    doomed.kill()
    other = site.worker(**allowed)
    status = site.wait_for(web, answer.json()["job_id"], "dead")
    assert status["error"]["code"] == "worker-lost"
    eventually(lambda: sample(other, "app_job_leases_lost_total") == 1)
    assert sample(other, 'app_jobs_finished_total{outcome="dead"') == 1
    (line,) = other.logged("its worker stopped renewing the lease")
    assert line["request_id"] == "follow-me-0003"


@pytest.mark.parametrize("path", ["/items", "/api/v1/jobs"])
def test_alone_the_service_says_what_it_lacks(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 503
    assert answer.json()["title"] == "Postgres is not available"
    assert answer.json()["detail"] == "DATABASE_URL is not set"
