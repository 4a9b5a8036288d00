"""A local stack for the tests, with names, ports and networks of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bundle.builder.images import engine
from tests.unit.app.appkit import ROOT, free_port

REVIEWS = "id,text\n1,This is wonderful.\n2,This is terrible.\n3,It came on Tuesday.\n"
LONG_RUNNING = (
    *("postgres", "redis", "app", "worker", "nginx", "prometheus", "alertmanager"),
    *("postgres-exporter", "redis-exporter", "nginx-exporter", "node-exporter"),
)
#: Runs in a container: tries TCP connections and says of each whether it is open.
CONNECT = """
import json, socket, sys
found = {}
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 2).close()
        found[target] = "open"
    except socket.gaierror:
        found[target] = "no such name"
    except TimeoutError:
        found[target] = "no answer"
    except OSError as error:
        found[target] = type(error).__name__
print(json.dumps(found))
"""


class Stack:
    """One project of Compose, raised from this tree's docker-compose.yml."""

    def __init__(self, name: str, folder: Path, network: str, **settings: str) -> None:
        self.name = name
        self.folder = folder
        self.network = network
        self.port = 0
        names = ("PORT", "HTTP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")
        self.ports = {name: free_port() for name in (*names, "DEV_PORT")}
        (folder / "inbox").mkdir(exist_ok=True)
        folder.chmod(0o755)
        self.env = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": name,
            "STACK_NETWORK": network,
            "SOURCES_DIR": str(folder),
            "RATE_LIMIT_PER_MIN": "100000",
            **{key: str(port) for key, port in self.ports.items()},
            **settings,
        }

    def compose(
        self, *arguments: str, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Compose on this stack, as a user does."""
        done = subprocess.run(
            [str(ROOT / "scripts/compose.sh"), *arguments],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def up(self, *arguments: str) -> None:
        self.compose("up", "--detach", "--no-build", *arguments)

    def url(self, port: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[port]}{path}"

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: bool = True,
        headers: dict[str, str] | None = None,
        port: str = "HTTP_PORT",
    ) -> tuple[int, dict[str, str], Any]:
        """Send a request through one of Nginx's ports; `key` is for the site's rows."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.url(port, path), method=method, headers=headers or {}
        )
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return answer.status, dict(answer.headers), decode(answer.read())
        except urllib.error.HTTPError as answer:
            return answer.code, dict(answer.headers), decode(answer.read())

    def ready(self, seconds: float = 60) -> None:
        """Wait until the service is ready, through Nginx."""
        self.eventually(lambda: self.request("GET", "/health/ready")[0] == 200, seconds)

    @staticmethod
    def eventually(
        check: Callable[[], Any], seconds: float = 60, what: Callable[[], Any] = str
    ) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if value := check():
                    return value
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s {what()}"
            time.sleep(0.3)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus; return its samples."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(  # noqa: S310
            self.url("PROMETHEUS_PORT", f"/api/v1/query?{query}"), timeout=10
        ) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """Return the single value of an expression, or 0 without one."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def containers(self) -> dict[str, str]:
        """Return service: id of its (first) container; one question to the engine."""
        form = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        mine = f"label=com.docker.compose.project={self.name}"
        lines = docker("ps", "--all", "--filter", mine, "--format", form).splitlines()
        return {service: one for service, _, one in (line.partition(" ") for line in lines)}

    def container(self, service: str) -> str:
        return self.containers()[service]

    def states(self) -> dict[str, str]:
        lines = self.compose("ps", "--all", "--format", "{{.Service}} {{.State}} {{.Health}}")
        return {
            line.split()[0]: line.partition(" ")[2].strip() for line in lines.stdout.splitlines()
        }

    @contextlib.contextmanager
    def beside(self, network: str, code: str, *names: str) -> Iterator[str]:
        """Run a Python program in a container of its own on one of the stack's networks."""
        container = f"{self.name}-{uuid.uuid4().hex[:8]}"
        aliases = [word for name in names for word in ("--network-alias", name)]
        docker(
            *("run", "--detach", "--interactive", "--name", container),
            *("--network", f"{self.name}_{network}", *aliases),
            *("--label", "airlift.unit", "airlift/app:local", "python", "-u", "-c", code),
        )
        try:
            yield container
        finally:
            docker("rm", "--force", container)

    def reach(self, network: str, *targets: str) -> dict[str, str]:
        """Return target: open, or the reason, as seen from a container on that network only."""
        done = docker(
            *("run", "--rm", "--name", f"{self.name}-{uuid.uuid4().hex[:8]}"),
            *("--network", f"{self.name}_{network}", "airlift/app:local"),
            *("python", "-c", CONNECT, *targets),
        )
        found: dict[str, str] = json.loads(done)
        return found

    def left(self) -> list[str]:
        """Return the parts of this stack that the engine still has."""
        names = docker("ps", "--all", "--format", "{{.Names}}").split()
        names += docker("volume", "ls", "--quiet").split()
        names += docker("network", "ls", "--format", "{{.Name}}").split()
        return [
            name for name in names if name.startswith(f"{self.name}-") or f"{self.name}_" in name
        ]

    # What the site's rows also ask of a journey.
    @property
    def facts(self) -> Any:
        return self

    manifest = {"version": "local"}  # noqa: RUF012

    def feed(self) -> None:
        path = self.folder / "inbox/demo.csv"
        path.write_text(REVIEWS)
        path.chmod(0o644)

    def result_of(self, job: str, *, seconds: float = 60) -> tuple[int, Any]:
        path = f"/api/v1/jobs/result/{job}"
        found = self.eventually(
            lambda: (answer := self.request("GET", path))[0] != 202 and answer, seconds
        )
        return found[0], found[2]


class Clone(Stack):
    """A copy of this tree's files, in which the script may write, with a stack of its own."""

    def __init__(self, root: Path, name: str, network: str) -> None:
        super().__init__(name, root / "stack/sources", network)
        del self.env["SOURCES_DIR"]
        self.root = root

    def setup(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "scripts/setup-environment.sh"), *arguments],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / ".cache/stack/report.json").read_text())
        return found

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def decode(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return answer.decode(errors="replace")


def docker(*arguments: str) -> str:
    return engine.run(arguments, what=f"docker {arguments[0]}").strip()
