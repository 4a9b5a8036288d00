"""The service's own benchmark: `/predict` beside the usual way, `/health` beside bare Starlette.

    .venv/bin/python scripts/bench_service.py [part ...] [--rounds 5] [--seconds 8]

Parts: predict, health, endpoints. Both sides run with two gunicorn workers and are loaded
by `wrk` (Debian's package) from the same two cores, in turn and in one run; a ratio is the median
of the rounds' ratios. The service runs as on a site: keys are checked, rates limited in Redis,
each request counted and logged to a file; only the cache of predictions is off, and the texts
differ. Postgres and Redis are reached by their containers' own addresses, as on a site: behind a
published port one more process would take its share of the cores. Results are merged into
docs/benchmarks/results.json.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from bundle import cache, engine
from scripts import bench_page
from scripts.bench_load import Call, Running, Sample, fire, middle, ratio, running
from tests.unit.app.appkit import (
    PASSWORD,
    Postgres,
    Redis,
    Server,
    Site,
    eventually,
    free_port,
)

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "docs" / "benchmarks" / "baseline"
WORKERS = 2
#: What a peer uses in the version that the service uses.
SHARED = (
    *("fastapi", "gunicorn", "httptools", "numpy", "prometheus-client", "pydantic"),
    *("scikit-learn", "starlette", "uvicorn", "uvicorn-worker", "uvloop"),
)
CLIENTS = 100
KEY = "bench-0123456789abcdef0123456789abcdef"
#: Settings of the service under load: as on a site, limits too high to be met, no cache.
SERVICE = {
    "AUTH_ENABLED": "true",
    "WEB_CONCURRENCY": str(WORKERS),
    "RATE_LIMIT_PER_MIN": "100000000",
    "PREDICT_CACHE_BYTES": "0",
    # The load takes all cores: a look-up of the key must not fail for that.
    "DATABASE_TIMEOUT_SECONDS": "20",
}


def texts(folder: Path, count: int = 4000) -> Path:
    """Bodies with a text of 18 words each, the same in each run and no two alike."""
    model = json.loads((ROOT / "app" / "models" / "sentiment.json").read_text())
    words = [term for term in model["terms"] if " " not in term]
    draw = random.Random(7)  # noqa: S311 - no secret
    path = folder / "texts"
    path.write_text(
        "".join(
            json.dumps({"text": " ".join(draw.choices(words, k=18))}) + "\n" for _ in range(count)
        )
    )
    return path


def beside(server: Server, port: int) -> str:
    """The address of a datastore on the engine's network."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    found = engine.run(("inspect", "--format", form, server.container), what="docker inspect")
    return f"{found.split()[0]}:{port}"


@contextlib.contextmanager
def service(site: Site, **environment: str) -> Iterator[Running]:
    """The service on a site's database, with the benchmark's key."""
    keys = site.folder / "keys.json"
    keys.write_text(
        json.dumps([{"client": "bench", "key_sha256": hashlib.sha256(KEY.encode()).hexdigest()}])
    )
    site.command("keys", "sync", str(keys))
    port = free_port()
    variables = {
        **site.environment,
        **SERVICE,
        "DATABASE_URL": f"postgresql://airlift_owner@{beside(site.postgres, 5432)}/{site.database}",
        "REDIS_URL": f"redis://{beside(site.redis, 6379)}/0",
        "PORT": str(port),
        "PROMETHEUS_MULTIPROC_DIR": str(site.folder / f"prom-{port}"),
        "DRAIN_FILE": str(site.folder / f"drain-{port}"),
        **environment,
    }
    command = [sys.executable, "-m", "app", "serve"]
    url = f"http://127.0.0.1:{port}"
    with running(command, variables, url, site.folder, site.folder / "service.log") as server:
        yield server


def venv(name: str, requirements: Path) -> Path:
    """A virtual environment of a peer, kept in the cache; what we both use has our versions."""
    ours = [f"{name}=={metadata.version(name)}" for name in SHARED]
    folder = (
        cache.root()
        / "bench"
        / f"{name}-{cache.key([requirements.read_text(), ours, sys.version])}"
    )
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(ours))
        subprocess.run(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--requirement",
                str(requirements),
                "--constraint",
                str(constraints),
            ],
            check=True,
        )
        (folder / "complete").touch()
    return python


@contextlib.contextmanager
def gunicorn(python: Path, module: str, folder: Path, **environment: str) -> Iterator[Running]:
    """An application of docs/benchmarks/baseline with gunicorn and uvicorn workers."""
    port = free_port()
    command = [
        *(str(python), "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"),
        *("--worker-class", "uvicorn_worker.UvicornWorker", f"{module}:app"),
    ]
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}{os.pathsep}{BASELINE}",
        # One thread a process, as with two workers on two cores: more would only fight.
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    url = f"http://127.0.0.1:{port}"
    with running(command, variables, url, folder, folder / f"{module}.log") as server:
        yield server


def in_turn(
    ours: tuple[Running, Call], theirs: tuple[Running, Call], options: argparse.Namespace
) -> tuple[list[Sample], list[Sample]]:
    """Load both sides in turn, in alternating order."""
    found: tuple[list[Sample], list[Sample]] = ([], [])
    for server, call in (ours, theirs):
        fire(server, call, clients=CLIENTS, seconds=2)
    for number in range(options.rounds):
        order = (0, 1) if number % 2 else (1, 0)
        for side in order:
            server, call = (ours, theirs)[side]
            found[side].append(fire(server, call, clients=CLIENTS, seconds=options.seconds))
    return found


def measure_predict(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """`POST /predict` with texts that are not in a cache."""
    bodies = texts(site.folder)
    python = venv("baseline", BASELINE / "requirements.txt")
    redis = f"redis://:{PASSWORD}@{beside(site.redis, 6379)}/1"
    with (
        service(site) as ours,
        gunicorn(python, "service", site.folder, REDIS_URL=redis) as theirs,
    ):
        mine, peer = in_turn(
            (ours, Call("POST", "/predict", bodies, {"X-API-Key": KEY})),
            (theirs, Call("POST", "/predict", bodies)),
            options,
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


def measure_health(site: Site, options: argparse.Namespace) -> dict[str, Any]:
    """`GET /health` beside the least that answers."""
    call = Call("GET", "/health")
    with (
        service(site) as ours,
        gunicorn(Path(sys.executable), "bare", site.folder) as theirs,
    ):
        mine, peer = in_turn((ours, call), (theirs, call), options)
    return {
        "health_rps_ratio": ratio(mine, peer, "rps"),
        "health_rps": middle(mine, "rps"),
        "health_peer_rps": middle(peer, "rps"),
    }


def calls(site: Site, server: Running) -> dict[str, Call]:
    """One call of each endpoint, by the name of its result; makes the jobs that they ask about.

    The result and the reports are those of a job that a worker finished before; the job that is
    cancelled again and again is one that nobody runs.
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
    """The p95 of every endpoint with a hundred clients at a time (goal of B10: below 200 ms)."""
    with service(site) as server:
        return {
            f"p95_ms_{name}": fire(server, call, clients=CLIENTS, seconds=options.seconds).p95_ms
            for name, call in calls(site, server).items()
        }


MEASURES = {
    "predict": measure_predict,
    "health": measure_health,
    "endpoints": measure_endpoints,
}


def main() -> int:
    """Measure the parts asked for; merge and print."""
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
