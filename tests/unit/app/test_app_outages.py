"""How the service behaves while a dependency is down."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.app.appkit import Process, Site, eventually, sample

pytestmark = pytest.mark.docker

TRIGGER = {"source_type": "file", "config": {"root": "inbox", "path": "reviews.csv"}}


def ready(process: Process) -> tuple[int, str, dict[str, str]]:
    answer = process.http.get("/health/ready")
    body = answer.json()
    return answer.status_code, body["status"], body["checks"]


@pytest.mark.slow
def test_jobs_are_taken_and_run_while_redis_is_down(site: Site) -> None:
    web, worker = site.serve(), site.worker()
    assert ready(web)[:2] == (200, "ready")
    site.redis.down()
    try:
        job = site.trigger(web)
        site.wait_for(web, job, "succeeded")
        for process in (web, worker):
            status, state, checks = ready(process)
            assert (status, state) == (200, "degraded")
            assert checks["postgres"] == "ok"
            assert checks["redis"].startswith("not available")
        assert sample(web, 'app_job_hints_total{outcome="failed"}') == 1
    finally:
        site.redis.up()
    # Redis restarts without its streams; wake-up messages must work again all the same.
    eventually(lambda: ready(web)[1] == "ready" and ready(worker)[1] == "ready")
    eventually(lambda: _seconds(site, web) < 0.5, what="a job found by its hint")


def _seconds(site: Site, web: Process) -> float:
    started = time.monotonic()
    site.wait_for(web, site.trigger(web), "succeeded")
    return time.monotonic() - started


@pytest.mark.slow
def test_without_postgres_the_answer_is_503_and_it_heals(site: Site) -> None:
    web, worker = site.serve(), site.worker()
    job = site.trigger(web)
    site.wait_for(web, job, "succeeded")
    site.postgres.down()
    try:
        asked: list[tuple[str, str, object]] = [
            ("POST", "/api/v1/jobs/trigger", TRIGGER),
            ("GET", f"/api/v1/jobs/status/{job}", None),
            ("GET", f"/api/v1/jobs/result/{job}", None),
            ("GET", "/items", None),
            ("POST", "/items", {"name": "demo"}),
        ]
        # Send them at once: each waits for Postgres, and each client gives up after 15 s.
        with ThreadPoolExecutor(len(asked)) as pool:
            answers = list(pool.map(lambda one: web.http.request(*one[:2], json=one[2]), asked))
        for answer in answers:
            assert answer.status_code == 503, answer.url
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"]
        for process in (web, worker):
            status, state, checks = ready(process)
            assert (status, state) == (503, "unready")
            assert checks["postgres"].startswith("not available")
            assert process.http.get("/health").status_code == 200
            assert process.http.get("/metrics").status_code == 200
        assert web.http.post("/predict", json={"text": "good"}).status_code == 200
    finally:
        site.postgres.up()
    eventually(lambda: ready(web)[0] == ready(worker)[0] == 200, seconds=30)
    site.wait_for(web, site.trigger(web), "succeeded")
    assert web.popen.poll() is None
    assert worker.popen.poll() is None
    errors = [line for line in web.lines() + worker.lines() if line["level"] == "error"]
    assert errors == [], "an outage must not be logged as an error of the service"
