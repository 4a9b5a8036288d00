"""Start the servers for the service's benchmark: the service as on a site, and its peers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bundle.builder import cache
from bundle.builder.images import engine
from scripts.bench_load import Running, running
from tests.unit.app.appkit import Server, Site, free_port

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "docs" / "benchmarks"
WORKERS = 2
KEY = "bench-0123456789abcdef0123456789abcdef"
#: Settings of the service under load: those of a site, but with high limits and no cache.
SERVICE = {
    "AUTH_ENABLED": "true",
    "WEB_CONCURRENCY": str(WORKERS),
    "RATE_LIMIT_PER_MIN": "100000000",
    "PREDICT_CACHE_BYTES": "0",
    # The load takes all cores, so a key's look-up may be slow; it must not fail.
    "DATABASE_TIMEOUT_SECONDS": "20",
}


def texts(folder: Path, count: int = 4000) -> Path:
    """Write a file of bodies with texts of 18 words, always the same and all different."""
    model = json.loads((ROOT / "app" / "models" / "sentiment.json").read_text())
    words = [term for term in model["terms"] if " " not in term]
    draw = random.Random(7)  # noqa: S311 - not a secret
    path = folder / "texts"
    path.write_text(
        "".join(
            json.dumps({"text": " ".join(draw.choices(words, k=18))}) + "\n" for _ in range(count)
        )
    )
    return path


def beside(server: Server, port: int) -> str:
    """Return the address of a datastore on the engine's network."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    found = engine.run(("inspect", "--format", form, server.container), what="docker inspect")
    return f"{found.split()[0]}:{port}"


@contextlib.contextmanager
def service(site: Site, **environment: str) -> Iterator[Running]:
    """Run the service on a site's database, with the benchmark's key."""
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


def venv(name: str) -> Path:
    """Return a peer's cached virtual environment; shared libraries have our versions."""
    lock = PEERS / name / "requirements.txt"
    folder = cache.root() / "bench" / f"{name}-{cache.key([lock.read_text(), sys.version])}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        if folder.exists():  # left by an interrupted run
            shutil.rmtree(folder)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(ROOT / "scripts" / "locked-install.sh"), str(python), str(lock)]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return python


def peer_environment(*paths: Path) -> dict[str, str]:
    """Return the environment of all peers: program path, module path, one thread per process."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *paths))),
        # Two workers on two cores: more threads would only compete.
        "OMP_NUM_THREADS": "1",
    }


@contextlib.contextmanager
def gunicorn(python: Path, module: str, folder: Path, **environment: str) -> Iterator[Running]:
    """Run an application of docs/benchmarks/baseline with gunicorn and uvicorn workers."""
    port = free_port()
    command = [
        *(str(python), "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"),
        *("--worker-class", "uvicorn_worker.UvicornWorker", f"{module}:app"),
    ]
    variables = {**peer_environment(PEERS / "baseline"), **environment}
    url = f"http://127.0.0.1:{port}"
    with running(command, variables, url, folder, folder / f"{module}.log") as server:
        yield server


@contextlib.contextmanager
def litserve(folder: Path) -> Iterator[Running]:
    """Run LitServe as its documentation says: the program of docs/benchmarks/litserve."""
    port = free_port()
    command = [str(venv("litserve")), str(PEERS / "litserve" / "service.py"), str(port)]
    url = f"http://127.0.0.1:{port}"
    with running(command, peer_environment(), url, folder, folder / "litserve.log") as server:
        yield server


@contextlib.contextmanager
def bentoml(folder: Path) -> Iterator[Running]:
    """Run BentoML as its documentation says, with `bentoml serve` and without telemetry."""
    port = free_port()
    command = [
        *(str(venv("bentoml").with_name("bentoml")), "serve", "service:Sentiment"),
        *("--working-dir", str(PEERS / "bentoml"), "--host", "127.0.0.1", "--port", str(port)),
    ]
    variables = {
        **peer_environment(),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "bentoml"),
    }
    url = f"http://127.0.0.1:{port}"
    with running(command, variables, url, folder, folder / "bentoml.log") as server:
        yield server
