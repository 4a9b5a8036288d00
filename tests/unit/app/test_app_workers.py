"""Killed, frozen, paused and stopped workers lose no job and run none twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.app.appkit import Process, Site, eventually, sample
from tests.unit.app.gate import Gate, allow

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def web(shared: Site, gates: Gate) -> Process:
    return shared.serve(**allow(gates))


@pytest.fixture(autouse=True)
def _leave_nothing(shared: Site, web: Process) -> Iterator[None]:
    yield
    for process in shared.processes:
        if process is not web and process.popen.poll() is None:
            process.kill()
    with shared.connect() as connection:
        connection.execute("DELETE FROM jobs")


def start(web: Process, gate: Gate) -> str:
    answer = web.http.post("/api/v1/jobs/trigger", json=gate.trigger())
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["job_id"]
    return job


def test_nothing_is_lost_when_a_worker_is_killed(shared: Site, web: Process, gate: Gate) -> None:
    doomed = shared.worker(**allow(gate), JOB_LEASE_SECONDS="1")
    job = start(web, gate)
    gate.wait_for_request()
    doomed.kill()
    shared.worker(**allow(gate), JOB_LEASE_SECONDS="1")
    gate.wait_for_request()
    gate.opened.set()
    assert shared.wait_for(web, job, "succeeded")["attempts"] == 2
    assert shared.one("SELECT count(*) FROM job_results WHERE job_id = %s", job) == 1


def test_a_worker_that_comes_back_too_late_changes_nothing(
    shared: Site, web: Process, gate: Gate
) -> None:
    frozen = shared.worker(**allow(gate), JOB_LEASE_SECONDS="1")
    job = start(web, gate)
    gate.wait_for_request()
    os.kill(frozen.popen.pid, signal.SIGSTOP)
    other = shared.worker(**allow(gate), JOB_LEASE_SECONDS="1")
    gate.wait_for_request()
    gate.opened.set()
    status = shared.wait_for(web, job, "succeeded")
    os.kill(frozen.popen.pid, signal.SIGCONT)
    eventually(lambda: frozen.logged("lease lost"), what="the late worker to notice")
    assert web.http.get(f"/api/v1/jobs/status/{job}").json() == status
    assert shared.one("SELECT count(*) FROM job_results") == 1
    assert other.logged("job attempt ended")[-1]["outcome"] == "succeeded"


def test_a_worker_that_is_told_to_stop_finishes_what_it_holds(
    shared: Site, web: Process, gate: Gate
) -> None:
    worker = shared.worker(**allow(gate), WORKER_CONCURRENCY_MIN="1", WORKER_CONCURRENCY_MAX="1")
    held = start(web, gate)
    gate.wait_for_request()
    waiting = shared.trigger(web)
    worker.popen.send_signal(signal.SIGTERM)
    answer = eventually(
        lambda: (ready := worker.http.get("/health/ready")).status_code == 503 and ready
    )
    assert "drain" in answer.json()["checks"]
    gate.opened.set()
    assert worker.stop() == 0
    states = {
        job: web.http.get(f"/api/v1/jobs/status/{job}").json()["status"] for job in (held, waiting)
    }
    assert states == {held: "succeeded", waiting: "queued"}
    assert worker.logged("worker ended")


def test_a_job_that_outlasts_the_drain_is_given_back(
    shared: Site, web: Process, gate: Gate
) -> None:
    worker = shared.worker(**allow(gate), WORKER_DRAIN_SECONDS="0.3")
    job = start(web, gate)
    gate.wait_for_request()
    assert worker.stop() == 0
    status = web.http.get(f"/api/v1/jobs/status/{job}").json()
    assert (status["status"], status["attempts"]) == ("queued", 0)


@pytest.mark.slow
def test_a_paused_worker_takes_nothing_in(shared: Site, web: Process) -> None:
    worker = shared.worker(DRAIN_FILE=str(shared.folder / "pause"))
    shared.command("drain", DRAIN_FILE=str(shared.folder / "pause"))
    eventually(lambda: worker.http.get("/health/ready").status_code == 503)
    time.sleep(1.2)  # one wait for a message may still be in progress
    job = shared.trigger(web)
    time.sleep(1)
    assert web.http.get(f"/api/v1/jobs/status/{job}").json()["status"] == "queued"
    shared.command("drain", "--off", DRAIN_FILE=str(shared.folder / "pause"))
    shared.wait_for(web, job, "succeeded")


@pytest.mark.slow
def test_many_jobs_and_two_workers_make_each_result_once(shared: Site, web: Process) -> None:
    workers = [shared.worker(), shared.worker()]
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: shared.trigger(web), range(60)))
    eventually(
        lambda: shared.one("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == len(jobs)
    )
    assert shared.one("SELECT count(*) FROM job_results") == len(jobs)
    assert shared.one("SELECT max(attempts) FROM jobs") == 1
    each_did = [sample(each, 'app_jobs_finished_total{outcome="succeeded"') for each in workers]
    assert sum(each_did) == len(jobs)
