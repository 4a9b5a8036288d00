"""A10 and operations: jobs are cancelled, listed, requeued and, when old, deleted."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.jobs.listing import Cursor
from tests.unit.app.appkit import Process, Site, eventually, sample
from tests.unit.app.gate import Gate, allow

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def web(shared: Site, gates: Gate) -> Process:
    """Return the service without a worker: jobs stay queued until a test starts one."""
    return shared.serve(**allow(gates), JOB_MAX_ATTEMPTS="2")


@pytest.fixture(autouse=True)
def _leave_nothing(shared: Site, web: Process) -> Iterator[None]:
    yield
    for process in shared.processes:
        if process is not web and process.popen.poll() is None:
            process.kill()
    with shared.connect() as connection:
        connection.execute("DELETE FROM jobs")


def start(web: Process, gate: Gate, path: str = "/hold", **headers: str) -> str:
    answer = web.http.post("/api/v1/jobs/trigger", json=gate.trigger(path), headers=headers)
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["job_id"]
    return job


def cancel(web: Process, job: object) -> httpx.Response:
    return web.http.post(f"/api/v1/jobs/{job}/cancel")


def test_a10_a_queued_job_is_cancelled_at_once(shared: Site, web: Process) -> None:
    job = shared.trigger(web)
    answer = cancel(web, job)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["job_id"], body["status"], body["attempts"]) == (job, "cancelled", 0)
    assert body["finished_at"] is not None
    assert cancel(web, job).json() == body, "a repeated call changes nothing"
    worker = shared.worker()
    shared.wait_for(web, shared.trigger(web), "succeeded")
    assert web.http.get(f"/api/v1/jobs/status/{job}").json() == body
    result = web.http.get(f"/api/v1/jobs/result/{job}")
    assert (result.status_code, result.json()["type"]) == (
        410,
        "urn:airlift:problem:job-cancelled",
    )
    assert not [line for line in worker.logged("job started") if line["job_id"] == job]


@pytest.mark.slow
def test_a10_a_running_job_stops_and_stores_nothing(shared: Site, web: Process, gate: Gate) -> None:
    worker = shared.worker(**allow(gate), WORKER_CONCURRENCY_MIN="1", WORKER_CONCURRENCY_MAX="1")
    job = start(web, gate)
    gate.wait_for_request()
    assert cancel(web, job).json()["status"] == "cancelled"
    # The gate stays closed: the worker has room only because it noticed the cancellation.
    shared.wait_for(web, shared.trigger(web), "succeeded")
    (ended,) = [line for line in worker.logged("attempt ended") if line["job_id"] == job]
    assert ended["outcome"] == "cancelled"
    assert sample(worker, 'app_jobs_finished_total{outcome="cancelled"') == 1
    gate.opened.set()
    assert web.http.get(f"/api/v1/jobs/status/{job}").json()["status"] == "cancelled"
    assert shared.one("SELECT count(*) FROM job_results WHERE job_id = %s", job) == 0


def test_a10_a_cancelled_job_refuses_the_result_of_a_worker_that_has_not_noticed(
    shared: Site, web: Process, gate: Gate
) -> None:
    worker = shared.worker(**allow(gate))
    job = start(web, gate)
    gate.wait_for_request()
    cancel(web, job)
    gate.opened.set()  # before the next heartbeat
    eventually(lambda: worker.logged("attempt ended"))
    assert web.http.get(f"/api/v1/jobs/status/{job}").json()["status"] == "cancelled"
    assert shared.one("SELECT count(*) FROM job_results WHERE job_id = %s", job) == 0


def test_a10_a_finished_job_cannot_be_cancelled(shared: Site, web: Process) -> None:
    shared.worker()
    for path, state in (("reviews.csv", "succeeded"), ("missing.csv", "failed")):
        job = shared.trigger(web, path)
        shared.wait_for(web, job, state)
        answer = cancel(web, job)
        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 409
        assert answer.json()["state"] == state
    assert cancel(web, uuid.uuid4()).status_code == 404
    assert cancel(web, "no-uuid").status_code == 422


@pytest.mark.slow
def test_a10_cancel_and_finish_race_and_one_of_them_wins(shared: Site, web: Process) -> None:
    worker = shared.worker()
    jobs = [shared.trigger(web) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda job: cancel(web, job), jobs))
    eventually(lambda: shared.one("SELECT count(*) FROM jobs WHERE finished_at IS NULL") == 0)
    for job, answer in zip(jobs, answers, strict=True):
        state = web.http.get(f"/api/v1/jobs/status/{job}").json()["status"]
        results = shared.one("SELECT count(*) FROM job_results WHERE job_id = %s", job)
        assert (answer.status_code, state, results) in {
            (200, "cancelled", 0),
            (409, "succeeded", 1),
        }
    assert worker.popen.poll() is None


def pages(web: Process, **query: Any) -> Iterator[dict[str, Any]]:
    """Return all pages of the list."""
    while True:
        answer = web.http.get("/api/v1/jobs", params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield page
        if page["next_cursor"] is None:
            return
        query["cursor"] = page["next_cursor"]


def ids(web: Process, **query: Any) -> list[str]:
    return [job["job_id"] for page in pages(web, **query) for job in page["jobs"]]


def test_a10_the_list_is_newest_first_and_stable_under_inserts(shared: Site, web: Process) -> None:
    with shared.connect() as connection:
        # All jobs have the same time: only the id tells them apart.
        connection.execute(
            """INSERT INTO jobs (id, client, source_type, payload_version, config, max_attempts,
                   created_at)
               SELECT gen_random_uuid(), 'anonymous', 'file', 99, '{}', 5, now()
               FROM generate_series(1, 25)"""
        )
    before = [shared.trigger(web) for _ in range(5)]
    walked: list[str] = []
    for number, page in enumerate(pages(web, limit=4)):
        assert len(page["jobs"]) <= 4
        walked += [job["job_id"] for job in page["jobs"]]
        if number < 5:
            shared.trigger(web)
    assert walked[:5] == before[::-1]
    assert len(walked) == len(set(walked)) == 30
    assert len(ids(web)) == 35


def test_a10_the_list_is_filtered(shared: Site, web: Process, gate: Gate) -> None:
    files = [shared.trigger(web) for _ in range(3)]
    time.sleep(0.01)
    calls = [start(web, gate) for _ in range(2)]
    cancel(web, files[0])
    newest, oldest = calls[::-1], files[::-1]
    assert ids(web, source_type="api") == newest
    assert ids(web, source_type=["api", "file"]) == newest + oldest
    assert ids(web, status="cancelled") == [files[0]]
    assert ids(web, status=["cancelled", "queued"], source_type="file", limit=1) == oldest
    (moment,) = {
        job["created_at"]
        for page in pages(web)
        for job in page["jobs"]
        if job["job_id"] == calls[0]
    }
    assert ids(web, created_from=moment) == newest
    assert ids(web, created_before=moment) == oldest
    assert ids(web, created_from=moment, created_before=moment) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=finished", "status.0"),
        ("source_type=ftp", "source_type.0"),
        ("created_from=yesterday", "created_from"),
        ("created_before=2026-01-01T00:00:00", "created_before"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("state=dead", "state"),
        ("cursor=x", "cursor"),
        ("cursor=" + "A" * 64, "cursor"),
        ("cursor=%C3%A4", "cursor"),
        ("cursor=", "cursor"),
    ],
)
def test_a10_a_wrong_filter_is_named(web: Process, query: str, field: str) -> None:
    answer = web.http.get(f"/api/v1/jobs?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_cursor_survives_the_way_there_and_back(shared: Site) -> None:
    with shared.connect() as connection:
        moment = connection.execute("SELECT '1969-12-31 23:59:59.999999+00'::timestamptz")
        cursor = Cursor(moment.fetchone()[0], uuid.uuid4())
    assert Cursor.of(cursor.text()) == cursor


@pytest.mark.slow
def test_a10_only_ones_own_jobs(site: Site) -> None:
    keys = {"one": "the-key-of-one", "two": "the-key-of-two"}
    entries = [
        {"client": name, "key_sha256": hashlib.sha256(key.encode()).hexdigest()}
        for name, key in keys.items()
    ]
    (site.folder / "keys.json").write_text(json.dumps(entries))
    site.command("keys", "sync", str(site.folder / "keys.json"))
    web = site.serve(AUTH_ENABLED="true")
    one, two = ({"x-api-key": key} for key in keys.values())
    mine, theirs = site.trigger(web, **one), site.trigger(web, **two)
    for headers, job in ((one, mine), (two, theirs)):
        listed = web.http.get("/api/v1/jobs", headers=headers).json()
        assert [row["job_id"] for row in listed["jobs"]] == [job]
    assert web.http.post(f"/api/v1/jobs/{mine}/cancel", headers=two).status_code == 404
    assert web.http.get(f"/api/v1/jobs/status/{mine}", headers=one).json()["status"] == "queued"
    assert web.http.post(f"/api/v1/jobs/{mine}/cancel", headers=one).status_code == 200
    assert web.http.get("/api/v1/jobs").status_code == 401


@pytest.mark.slow
def test_dead_jobs_are_listed_and_put_back(shared: Site, web: Process, gate: Gate) -> None:
    worker = shared.worker(**allow(gate))
    dead = [start(web, gate, "/fail") for _ in range(3)]
    for job in dead:
        shared.wait_for(web, job, "dead")
    alive = shared.trigger(web)
    shared.wait_for(web, alive, "succeeded")
    worker.kill()
    listed = shared.command("jobs", "list-dead")
    assert {row["job_id"] for row in listed} == set(dead)
    assert {row["error"]["code"] for row in listed} == {"source-status"}
    assert {row["attempts"] for row in listed} == {2}
    assert len(shared.command("jobs", "list-dead", "--limit", "1")) == 1

    def states() -> list[str]:
        return [web.http.get(f"/api/v1/jobs/status/{job}").json()["status"] for job in dead]

    for unknown in (alive, str(uuid.uuid4())):
        lines = shared.command("jobs", "requeue", "--id", dead[0], "--id", unknown, fails=1)
        assert unknown in lines[-1]["reason"]
    assert states() == ["dead"] * 3
    assert shared.command("jobs", "requeue", "--id", dead[0])[-1]["count"] == 1
    assert states() == ["queued", "dead", "dead"]
    assert shared.command("jobs", "requeue", "--source-type", "file")[-1]["count"] == 0
    assert shared.command("jobs", "requeue", "--all")[-1]["count"] == 2
    last = shared.command("jobs", "requeue", "--all")[-1]
    assert (last["count"], last["changed"]) == (0, False)
    # A requeued job has all its attempts again.
    shared.worker(**allow(gate))
    for job in dead:
        assert shared.wait_for(web, job, "dead")["attempts"] == 2


@pytest.mark.slow
def test_old_jobs_are_deleted_in_batches(shared: Site, web: Process) -> None:
    with shared.connect() as connection:
        for age, count in (("31 days", 1200), ("29 days", 3)):
            connection.execute(
                """WITH made AS (
                       INSERT INTO jobs (id, client, source_type, payload_version, config,
                           max_attempts, state, finished_at)
                       SELECT gen_random_uuid(), 'old', 'file', 1, '{}', 5,
                           (ARRAY['succeeded', 'failed', 'dead', 'cancelled'])[1 + n %% 4],
                           now() - %s::interval
                       FROM generate_series(1, %s) AS n RETURNING id),
                   kept AS (INSERT INTO job_results (job_id, result) SELECT id, '{}' FROM made)
                   INSERT INTO idempotency_keys (client, key, fingerprint, job_id, created_at)
                   SELECT 'old', id::text, '', id, now() - interval '23 hours' FROM made""",
                (age, count),
            )
        # An old key is deleted, but its job stays.
        connection.execute(
            """UPDATE idempotency_keys SET created_at = now() - interval '25 hours'
               WHERE job_id = (SELECT min(id::text)::uuid FROM jobs
                               WHERE finished_at > now() - interval '30 days')"""
        )
        # A very old job that never finished stays.
        connection.execute(
            """INSERT INTO jobs (id, client, source_type, payload_version, config, max_attempts,
                   created_at) VALUES (gen_random_uuid(), 'old', 'file', 99, '{}', 5,
                   now() - interval '90 days')"""
        )
    rows = "SELECT count(*) FROM {}"
    kept = shared.worker(JOB_RETENTION_DAYS="0", JOB_LEASE_SECONDS="1")
    eventually(lambda: shared.one(rows.format("idempotency_keys")) == 1202)
    eventually(lambda: sample(kept, 'app_jobs{state="dead"') == 301)
    assert shared.one(rows.format("jobs")) == 1204
    kept.kill()
    worker = shared.worker()
    eventually(lambda: shared.one(rows.format("jobs")) == 4)
    assert shared.one(rows.format("job_results")) == 3
    assert shared.one(rows.format("idempotency_keys")) == 2
    assert worker.logged("old jobs deleted")
