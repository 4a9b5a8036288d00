"""Shared parts of the service's tests: a client, real datastores, real processes."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import anyio
import httpx
import psycopg
from fastapi import FastAPI

from tests.unit.app import warm

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "a-password-of-the-tests"
JSON = {"content-type": "application/json"}


class Client:
    """Client that calls the application in this process, without its lifespan."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return anyio.run(call)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


def eventually(check: Callable[[], Any], *, seconds: float = 20, what: str = "") -> Any:
    """Wait until `check` returns a true value; return it."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError, OSError):
            if value := check():
                return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or check}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@functools.cache
def image_of(component: str) -> str:
    """Return the product's own image of a component; build it if the engine lacks it."""
    from bundle.builder.images import lockfile, recipes  # noqa: PLC0415

    lock = lockfile.load(ROOT / "bundle" / "images.lock.yml")
    recipe = lock.bases["python"][1] if component == "python" else _recipe(lock, component)
    with one_builder():
        return recipes.make(lock, recipe, recipes.base(lock, recipe.base, _quiet), _quiet)


@contextlib.contextmanager
def one_builder() -> Iterator[None]:
    """Hold a lock, so that parallel test processes do not build the same image at once."""
    from bundle.builder import cache  # noqa: PLC0415

    with (cache.root() / "unit-tests.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _recipe(lock: Any, component: str) -> Any:
    images = lock.images
    pins = images.values() if isinstance(images, dict) else images
    return next(pin.recipe for pin in pins if pin.name == component)


def _quiet(_message: str) -> None:
    """Discard progress messages of builds."""


def _docker(*arguments: str) -> str:
    from bundle.builder.images import engine  # noqa: PLC0415

    return engine.run(arguments, what=f"docker {arguments[0]}").strip()


@dataclass
class Server:
    """One datastore in a container, on a loopback port that a restart keeps."""

    container: str
    port: int

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Iterator[Self]:
        from bundle.builder.images import engine  # noqa: PLC0415

        engine.require()
        server = cls(f"airlift-unit-{uuid.uuid4().hex[:12]}", free_port())
        try:
            image, port, script = server.recipe()
            _docker(
                *("run", "--detach", "--name", server.container, "--label", "airlift.unit"),
                *("--publish", f"127.0.0.1:{server.port}:{port}", "--user", "999:999"),
                *("--entrypoint", "sh", image, "-ec", script),
            )
            server.wait()
            yield server
        finally:
            subprocess.run(
                [*engine.docker(), "rm", "--force", server.container],
                capture_output=True,
                check=False,
            )

    def recipe(self) -> tuple[str, int, str]:
        raise NotImplementedError

    def wait(self) -> None:
        raise NotImplementedError

    def down(self) -> None:
        _docker("stop", "--time", "5", self.container)

    def up(self) -> None:
        _docker("start", self.container)
        self.wait()

    def kill(self) -> None:
        """Kill every process in the container; `up` starts it again with the data that is left."""
        _docker("kill", "--signal", "KILL", self.container)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Pause all its processes: connections stay open and nothing answers."""
        _docker("pause", self.container)
        try:
            yield
        finally:
            _docker("unpause", self.container)


class Postgres(Server):
    """Postgres 17 as on a site: scram, UTF-8, the builtin collation."""

    def recipe(self) -> tuple[str, int, str]:
        return (
            image_of("postgres"),
            5432,
            f"""
            if [ ! -f /tmp/data/PG_VERSION ]; then
                echo '{PASSWORD}' > /tmp/password
                initdb -D /tmp/data --username airlift_owner --pwfile /tmp/password \\
                    --auth scram-sha-256 --encoding UTF8 --locale C --locale-provider builtin \\
                    --builtin-locale C.UTF-8 --no-sync > /dev/null
                echo 'host all all all scram-sha-256' >> /tmp/data/pg_hba.conf
            fi
            exec postgres -D /tmp/data -c listen_addresses='*' -c fsync=off \\
                -c unix_socket_directories=/tmp -c max_connections=200
            """,
        )

    def wait(self) -> None:
        def ready() -> bool:
            try:
                self.connect().close()
            except psycopg.Error:
                return False
            return True

        eventually(ready, what="Postgres")

    def connect(self, database: str = "postgres", user: str = "airlift_owner") -> Any:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            dbname=database,
            password=PASSWORD,
            connect_timeout=2,
            autocommit=True,
        )


class Redis(Server):
    """Redis without persistence over a restart."""

    def recipe(self) -> tuple[str, int, str]:
        return (
            image_of("redis"),
            6379,
            f"exec redis-server --bind 0.0.0.0 --requirepass {PASSWORD} --save '' --dir /tmp",
        )

    def wait(self) -> None:
        eventually(lambda: self.command("PING"), what="Redis")

    def command(self, command: str) -> bool:
        """Send one command; return whether the answer was no error."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(f"AUTH {PASSWORD}\r\n{command}\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := connection.recv(64)):
                answer += part
            return answer.startswith(b"+OK\r\n+")


@dataclass
class Process:
    """A process of the service and its log."""

    popen: subprocess.Popen[bytes] | warm.Started
    log: Path
    url: str

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=15)

    def lines(self) -> list[dict[str, Any]]:
        """Return the whole log as JSON lines; any other line fails the test."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if event in line["event"]]

    def kill(self) -> None:
        """Kill it with its children, as the end of a container or a power cut would."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(10)

    def stop(self, seconds: float = 30) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(seconds)


@dataclass
class Site:
    """One database and the processes that use it."""

    postgres: Postgres
    redis: Redis
    database: str
    folder: Path
    processes: list[Process] = field(default_factory=list)

    @classmethod
    def create(
        cls, postgres: Postgres, redis: Redis, folder: Path, template: str = "template1"
    ) -> Self:
        """Create a database, named after the folder, as a copy of another."""
        name = f"{folder.name}-db"
        with postgres.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return cls(postgres, redis, name, folder)

    def __post_init__(self) -> None:
        self.inbox = self.folder / "inbox"
        self.inbox.mkdir()
        (self.inbox / "reviews.csv").write_text(
            "id,comment\n1,I love it\n2,terrible and broken\n3,\n"
        )
        secrets = self.folder / "secrets"
        secrets.mkdir()
        for name in ("database_password", "redis_password"):
            (secrets / name).write_text(f"{PASSWORD}\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SECRETS_DIR": str(secrets),
            "DATABASE_URL": f"postgresql://airlift_owner@127.0.0.1:{self.postgres.port}/{self.database}",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "FILE_ROOTS": json.dumps({"inbox": str(self.inbox)}),
            # Some tests turn authentication on, which would close the source.
            "OPEN_SOURCES": '["root:inbox"]',
            "COLOUR": "blue",
            # Tests send more requests than clients may; the tests of the limit set their own.
            "RATE_LIMIT_PER_MIN": "1000000",
            "JOB_BACKOFF_BASE_SECONDS": "0.1",
            "JOB_BACKOFF_CAP_SECONDS": "0.2",
            "WORKER_POLL_SECONDS": "1",
        }

    def connect(self, user: str = "airlift_owner") -> Any:
        return self.postgres.connect(self.database, user)

    def one(self, query: str, *parameters: Any) -> Any:
        with self.connect() as connection:
            row = connection.execute(query, parameters).fetchone()
        return row[0] if row is not None and len(row) == 1 else row

    def command(self, *arguments: str, fails: int = 0, **environment: str) -> list[dict[str, Any]]:
        """Run one command of the image; return its log."""
        done = warm.run("app", arguments, env={**self.environment, **environment}, cwd=self.folder)
        assert done.returncode == fails, done.stdout + done.stderr
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]

    def _start(self, command: str, port: int, **environment: str) -> Process:
        log = self.folder / f"log-{len(self.processes)}"
        variables = {**self.environment, **environment}
        with log.open("wb") as output:
            streams = {"stdout": output.fileno(), "stderr": output.fileno()}
            popen = warm.start("app", [command], env=variables, cwd=self.folder, **streams)
        process = Process(popen, log, f"http://127.0.0.1:{port}")
        self.processes.append(process)

        def alive() -> bool:
            assert popen.poll() is None, log.read_text()
            return process.http.get("/health").status_code == 200

        eventually(alive, seconds=40, what=command)
        return process

    def serve(self, **environment: str) -> Process:
        """Start gunicorn with two workers, as in the image."""
        port = free_port()
        environment = {
            "PORT": str(port),
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder / f"prom-{port}"),
            "DRAIN_FILE": str(self.folder / f"drain-{port}"),
            **environment,
        }
        return self._start("serve", port, **environment)

    def worker(self, **environment: str) -> Process:
        port = free_port()
        environment = {
            "WORKER_METRICS_PORT": str(port),
            "DRAIN_FILE": str(self.folder / f"drain-{port}"),
            **environment,
        }
        return self._start("worker", port, **environment)

    def stop_all(self) -> None:
        for process in self.processes:
            process.http.close()
            if process.popen.poll() is None:
                process.kill()

    def trigger(self, process: Process, path: str = "reviews.csv", **headers: str) -> str:
        """Start a job on a file of the inbox; return its id."""
        answer = process.http.post(
            "/api/v1/jobs/trigger",
            json={"source_type": "file", "config": {"root": "inbox", "path": path}},
            headers=headers,
        )
        assert answer.status_code == 202, answer.text
        job: str = answer.json()["job_id"]
        return job

    def wait_for(self, process: Process, job: str, state: str, seconds: float = 20) -> Any:
        """Wait for a job to reach a state; return its status."""

        def reached() -> Any:
            body = process.http.get(f"/api/v1/jobs/status/{job}").json()
            return body if body.get("status") == state else None

        return eventually(reached, seconds=seconds, what=f"job {job} {state}")


def sample(process: Process, series: str) -> float:
    """Return the sum of the samples whose name and labels start with `series`."""
    text = process.http.get("/metrics").text
    values = [
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(series)
    ]
    return sum(values)
