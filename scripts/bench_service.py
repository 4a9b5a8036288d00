"""Benchmark the service: `/predict` beside the usual way, `/health` beside bare Starlette.

    .venv/bin/python scripts/bench_service.py [part ...] [--rounds 5] [--seconds 8]

Parts: predict, peers (LitServe and BentoML), health, endpoints. All sides run with two workers on
the same two cores, and `wrk` (Debian's package) loads them in turn in one run. A ratio is the
median of the rounds' ratios.

The service runs as on a site: it checks keys, limits rates in Redis, and counts each request and
logs it to a file. Only the cache of predictions is off, and all texts differ. Postgres and Redis
are reached at their containers' own addresses, as on a site, because a published port needs one
more process. Results are merged into docs/benchmarks/results.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from scripts import bench_page
from scripts.bench_load import Call, Running, in_turn, middle, ratio
from scripts.bench_servers import (
    KEY,
    bentoml,
    beside,
    gunicorn,
    litserve,
    service,
    texts,
    venv,
)
from tests.unit.app.appkit import PASSWORD, Postgres, Redis, Site, eventually


def measure_predict(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """Measure `POST /predict` with texts that are not in a cache."""
    bodies = texts(site.folder)
    redis = f"redis://:{PASSWORD}@{beside(site.redis, 6379)}/1"
    with (
        service(site) as ours,
        gunicorn(venv("baseline"), "service", site.folder, REDIS_URL=redis) as theirs,
    ):
        mine, peer = in_turn(
            [
                (ours, Call("POST", "/predict", bodies, {"X-API-Key": KEY})),
                (theirs, Call("POST", "/predict", bodies)),
            ],
            rounds=options.rounds,
            seconds=options.seconds,
        )
    return {
        "predict_rps_ratio": ratio(mine, peer, "rps"),
        "predict_cpu_ratio": ratio(mine, peer, "cpu_us"),
        "predict_p95_ratio": ratio(mine, peer, "p95_ms"),
        "predict_rps": middle(mine, "rps"),
        "predict_peer_rps": middle(peer, "rps"),
        "predict_cpu_us": middle(mine, "cpu_us"),
        "predict_peer_cpu_us": middle(peer, "cpu_us"),
    }


def measure_peers(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """Measure `POST /predict` beside model servers, with the texts of `measure_predict`."""
    call = Call("POST", "/predict", texts(site.folder))
    with (
        service(site) as ours,
        litserve(site.folder) as lit,
        bentoml(site.folder) as bento,
    ):
        mine, *others = in_turn(
            [(ours, replace(call, headers={"X-API-Key": KEY})), (lit, call), (bento, call)],
            rounds=options.rounds,
            seconds=options.seconds,
        )
    results: dict[str, Any] = {}
    for name, samples in zip(bench_page.SERVERS, others, strict=True):
        results |= {
            f"predict_vs_{name}_rps_ratio": ratio(mine, samples, "rps"),
            f"peer_{name}_rps": middle(samples, "rps"),
            f"peer_{name}_p95_ms": middle(samples, "p95_ms"),
            f"peer_{name}_cpu_us": middle(samples, "cpu_us"),
        }
    return results


def measure_health(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """Measure `GET /health` beside a minimal application."""
    call = Call("GET", "/health")
    with (
        service(site) as ours,
        gunicorn(Path(sys.executable), "bare", site.folder) as theirs,
    ):
        mine, peer = in_turn(
            [(ours, call), (theirs, call)], rounds=options.rounds, seconds=options.seconds
        )
    return {
        "health_rps_ratio": ratio(mine, peer, "rps"),
        "health_rps": middle(mine, "rps"),
        "health_peer_rps": middle(peer, "rps"),
    }


def calls(site: Site, server: Running) -> dict[str, Call]:
    """Return one call per endpoint, by the name of its result; create the jobs that they need.

    The result and the reports belong to a job that a worker finished before. The job that is
    cancelled repeatedly is never run.
    """
    key = {"X-API-Key": KEY}
    bodies: dict[str, dict[str, Any]] = {
        "row": {"data": [5.1, 3.5, 1.4, 0.2]},
        "batch": {"items": [{"text": f"good number {number}"} for number in range(50)]},
        "item": {"name": "bench"},
        "job": {"source_type": "file", "config": {"root": "inbox", "path": "reviews.csv"}},
    }
    for name, body in bodies.items():
        (site.folder / name).write_text(json.dumps(body) + "\n")
    with httpx.Client(base_url=server.url, headers=key) as client:
        done = _job(client, bodies["job"])
        worker = site.worker()
        try:
            _wait_for(client, done)
        finally:
            worker.stop()
        waiting = _job(client, bodies["job"])
    jobs = "/api/v1/jobs"
    reports = {
        f"report_{form}": Call("GET", f"{jobs}/{done}/report?format={form}", headers=key)
        for form in ("csv", "json", "html", "pdf")
    }
    return {
        "health": Call("GET", "/health"),
        "ready": Call("GET", "/health/ready"),
        "metrics": Call("GET", "/metrics"),
        "root": Call("GET", "/"),
        "predict_text": Call("POST", "/predict", texts(site.folder), key),
        "predict_row": Call("POST", "/predict", site.folder / "row", key),
        "predict_batch_of_50": Call("POST", "/predict/batch", site.folder / "batch", key),
        "predict_baseline": Call("GET", "/predict", headers=key),
        "model_info": Call("GET", "/model/info", headers=key),
        "items": Call("GET", "/items", headers=key),
        "items_post": Call("POST", "/items", site.folder / "item", key),
        "jobs_trigger": Call("POST", "/api/v1/jobs/trigger", site.folder / "job", key),
        "jobs_status": Call("GET", f"{jobs}/status/{done}", headers=key),
        "jobs_result": Call("GET", f"{jobs}/result/{done}", headers=key),
        "jobs_list": Call("GET", jobs, headers=key),
        "jobs_cancel": Call("POST", f"{jobs}/{waiting}/cancel", headers=key),
        **reports,
        "openapi": Call("GET", "/openapi.json"),
    }


def _job(client: httpx.Client, body: dict[str, Any]) -> str:
    accepted = client.post("/api/v1/jobs/trigger", json=body).raise_for_status().json()
    return str(accepted["job_id"])


def _wait_for(client: httpx.Client, job: str) -> None:
    def succeeded() -> bool:
        status = client.get(f"/api/v1/jobs/status/{job}").raise_for_status().json()
        return bool(status["status"] == "succeeded")

    eventually(succeeded, seconds=60, what=f"job {job}")


def measure_endpoints(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the p95 of every endpoint with 100 clients (target of B10: below 200 ms).

    As in the other parts, the first two seconds are discarded and the median of the rounds counts.
    """
    with service(site) as server:
        return {
            f"p95_ms_{name}": middle(samples, "p95_ms")
            for name, call in calls(site, server).items()
            for samples in in_turn([(server, call)], rounds=options.rounds, seconds=options.seconds)
        }


MEASURES = {
    "predict": measure_predict,
    "peers": measure_peers,
    "health": measure_health,
    "endpoints": measure_endpoints,
}


def main() -> int:
    """Measure the requested parts; merge and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(MEASURES)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--dry", action="store_true", help="print only; keep the results file")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(MEASURES):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if shutil.which("wrk") is None:
        parser.error("wrk is missing: apt install wrk")
    with (
        tempfile.TemporaryDirectory(prefix="bench") as name,
        Postgres.start() as postgres,
        Redis.start() as redis,
    ):
        site = Site.create(postgres, redis, Path(name))
        site.command("migrate")
        results: dict[str, Any] = {}
        for part in options.parts or MEASURES:
            print(f"measuring: {part}", flush=True)
            results |= MEASURES[part](site, options)
    print(json.dumps(results, indent=1))
    if not options.dry:
        bench_page.save(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
