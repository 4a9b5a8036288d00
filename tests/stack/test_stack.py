"""The local stack, raised for real: the contract's rows, isolation, restarts, and no remains."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import API
from tests.e2e.test_5_contract import ROWS
from tests.stack.stackkit import LONG_RUNNING, Stack, docker
from tests.unit.app.appkit import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow]

#: The rows of a site that hold here as they are; the others, with an answer of their own, follow.
SAME = [row for row in ROWS if row not in {"A5", "A6", "A7-api", "A10"}]


class Door:
    """The stack, seen through one of Nginx's two ports."""

    def __init__(self, stack: Stack, port: str) -> None:
        self._stack, self._port = stack, port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stack, name)

    def request(self, *words: Any, **options: Any) -> Any:
        return self._stack.request(*words, **options, port=self._port)


@pytest.fixture(params=["PORT", "HTTP_PORT"], ids=["8000", "8080"])
def door(stack: Stack, request: pytest.FixtureRequest) -> Any:
    return Door(stack, request.param)


#: What each script is for, as Prometheus tells it.
TRAFFIC = {
    "01_request_rate.sh": 'sum(rate(app_requests_total{endpoint="/openapi.json"}[1m])) > 0',
    "02_5xx_error_rate.sh": 'sum(rate(app_requests_total{http_status="503"}[1m])) > 0',
    "03_latency_p95.sh": "histogram_quantile(0.95, sum by (le)"
    ' (rate(app_request_latency_seconds_bucket{endpoint="/faults/slow"}[1m]))) > 0.2',
    "04_top_endpoints.sh": "topk(1, sum by (endpoint)"
    ' (rate(app_requests_total{endpoint=~"/health|/items|/model/info"}[1m]))) > 0',
    "05_exceptions_rate.sh": 'sum(rate(app_errors_total{error="OnPurposeError"}[1m])) > 0',
}
Scripts = dict[str, subprocess.Popen[str]]


def test_everything_runs_and_what_is_checked_is_healthy(stack: Stack, traffic: Scripts) -> None:
    states = stack.states()
    assert {name: states[name].partition(" ")[0] for name in LONG_RUNNING} == dict.fromkeys(
        LONG_RUNNING, "running"
    )
    assert {states[name] for name in ("secrets", "accounts", "migrate")} == {"exited"}
    stack.eventually(
        lambda: (
            not [one for one in stack.states().values() if one.endswith(("starting", "unhealthy"))]
        )
    )


def test_a_second_up_changes_nothing_that_runs(stack: Stack) -> None:
    """Before the tests that use --no-deps: Compose takes a service without them for another one."""
    before = {name: stack.container(name) for name in LONG_RUNNING}
    stack.up()
    assert {name: stack.container(name) for name in LONG_RUNNING} == before
    stack.ready()


@pytest.mark.parametrize("row", SAME)
def test_row(door: Any, row: str) -> None:
    ROWS[row](door)


def test_metrics_and_the_front_page(door: Any) -> None:
    """A5 and A6: on one's own machine everybody may read the counters, and there is no colour."""
    status, _, text = door.request("GET", "/metrics")
    assert status == 200
    for name in ("app_requests_total", "app_request_latency_seconds_bucket", "app_errors_total"):
        assert name in text
    status, _, answer = door.request("GET", "/")
    assert (status, answer["colour"], answer["release"]) == (200, "none", "local")


def test_api_jobs_and_cancelling(door: Any, stack: Stack) -> None:
    """A7 with an `api` source, A10."""
    with stack.beside("app", API, "api-source"):
        source = "http://api-source:8088"
        job = {"source_type": "api", "config": {"url": f"{source}/reviews"}}
        accepted = door.request("POST", "/api/v1/jobs/trigger", job)
        assert accepted[0] == 202, accepted[2]
        status, result = stack.result_of(accepted[2]["job_id"])
        assert (status, result["status"]) == (200, "succeeded")
    job = {"source_type": "api", "config": {"url": f"{source}/away"}}
    identity = door.request("POST", "/api/v1/jobs/trigger", job)[2]["job_id"]
    assert door.request("POST", f"/api/v1/jobs/{identity}/cancel")[2]["status"] == "cancelled"
    assert door.request("GET", f"/api/v1/jobs/result/{identity}")[0] == 410
    page = door.request("GET", "/api/v1/jobs?status=cancelled&limit=1")[2]
    assert page["jobs"][0]["job_id"] == identity
    refused = {"source_type": "api", "config": {"url": "http://postgres:5432/"}}
    assert door.request("POST", "/api/v1/jobs/trigger", refused)[0] == 422


def test_a_database_job_reads_the_stacks_own_items(stack: Stack) -> None:
    assert stack.request("POST", "/items", {"name": f"lovely-{uuid.uuid4()}"})[0] == 201
    config = {"source": "items", "query": "SELECT name AS text FROM items"}
    accepted = stack.request(
        "POST", "/api/v1/jobs/trigger", {"source_type": "database", "config": config}
    )
    assert accepted[0] == 202, accepted[2]
    status, answer = stack.result_of(accepted[2]["job_id"])
    assert (status, answer["status"]) == (200, "succeeded"), answer


def curl_lines() -> list[tuple[str, str]]:
    """Return (line, what its answer holds) of the file of example requests."""
    text = (ROOT / "tests/stack/curl.txt").read_text()
    return re.findall(r"^\$ (curl .*)\n> (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize(("line", "answer"), curl_lines(), ids=lambda text: text[:60])
def test_a_curl_line_as_it_is_written(stack: Stack, line: str, answer: str) -> None:
    ports = {"8000": "PORT", "8080": "HTTP_PORT", "9090": "PROMETHEUS_PORT"}
    words = shlex.split(line)
    # The tests' stack has ports of its own; the line stays as it is.
    for port, name in ports.items():
        words += ["--connect-to", f"localhost:{port}:127.0.0.1:{stack.ports[name]}"]
    done = subprocess.run(
        [*words, "--silent", "--max-time", "10"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert answer in done.stdout


@pytest.mark.parametrize("script", TRAFFIC)
def test_prometheus_shows_what_a_traffic_script_is_for(
    stack: Stack, traffic: Scripts, script: str
) -> None:
    said, _ = traffic[script].communicate(timeout=120)
    assert traffic[script].returncode == 0, said
    assert re.search(r"^ANSWER +REQUESTS\n", said, re.MULTILINE)
    assert "Prometheus  " in said
    assert "Grafana " in said
    found = stack.eventually(lambda: stack.query(TRAFFIC[script]), seconds=40)
    if script == "04_top_endpoints.sh":
        assert found[0]["metric"]["endpoint"] == "/health"


def test_the_limit_is_per_minute_and_address(stack: Stack) -> None:
    """B1 as .env.example has it, for somebody who comes from an address of their own."""
    stack.compose("up", "--detach", "--no-build", "--no-deps", "app", RATE_LIMIT_PER_MIN="60")
    stack.ready()
    code = """
import http.client
def ask(path):
    connection = http.client.HTTPConnection("nginx", 8080, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.getheader("retry-after")
print([ask("/predict")[0] for _ in range(61)].count(200), *ask("/predict"))
print(ask("/faults/error?status=503")[0], ask("/health")[0])
"""
    run = ("run", "--rm", f"--network={stack.name}_monitor", f"--name={stack.name}-limited")
    counted, faults = docker(*run, "airlift/app:local", "python", "-c", code).splitlines()
    good, status, seconds = counted.split()
    assert (good, status) == ("60", "429")
    assert 0 < int(seconds) <= 65
    assert faults == "503 200", "probes and faults are not counted"
    stack.compose("up", "--detach", "--no-build", "--no-deps", "app")
    stack.ready()


def test_networks_keep_apart_what_does_not_belong_together(stack: Stack) -> None:
    addresses = {}
    for service in ("app", "postgres", "redis", "worker"):
        networks = json.loads(
            docker(
                "inspect",
                "--format",
                "{{json .NetworkSettings.Networks}}",
                stack.container(service),
            )
        )
        for network, one in networks.items():
            addresses[f"{service}@{network.rpartition('_')[2]}"] = one["IPAddress"]
    app, database = addresses["app@data"], addresses["postgres@data"]
    # What is allowed is, or the rest would prove nothing.
    assert set(
        stack.reach("data", f"{database}:5432", f"{addresses['redis@data']}:6379").values()
    ) == {"open"}
    assert set(stack.reach("front", "app:8000", "nginx:8080").values()) == {"open"}
    assert set(stack.reach("app", "app:8000", "worker:8003").values()) == {"open"}
    # The app is not reached from the data, by no address of it; neither is the worker.
    everywhere = [one for name, one in addresses.items() if name.startswith("app@")]
    ways = [f"{one}:8000" for one in everywhere] + [f"{addresses['worker@data']}:8003"]
    assert "open" not in stack.reach("data", *ways, "app:8000").values()
    # Neither from Postgres and Redis themselves.
    for service in ("postgres", "redis"):
        done = stack.compose(
            *("exec", "-T", service, "timeout", "3", "bash", "-c"),
            f"exec 3<>/dev/tcp/{app}/8000",
            check=False,
        )
        assert done.returncode != 0, service
    # Data is reached from no other network; the engine lets nothing of it out.
    for network in ("front", "app", "monitor"):
        assert "open" not in stack.reach(network, f"{database}:5432", "postgres:5432").values()
    inspect = ("network", "inspect", "--format", "{{.Internal}}")
    assert docker(*inspect, f"{stack.name}_data") == "true"
    members = docker(
        *("network", "inspect", "--format", "{{range .Containers}}{{.Name}} {{end}}"),
        f"{stack.name}_front",
    )
    assert {name.removeprefix(f"{stack.name}-") for name in members.split()} == {"app-1", "nginx-1"}


def test_a_password_is_in_no_environment_and_no_log(stack: Stack) -> None:
    """Each is in the volumes of those who need it, readable by their user only."""
    inspect = [*(stack.container(name) for name in LONG_RUNNING), stack.container("migrate")]
    seen = docker("inspect", *inspect) + stack.compose("logs").stdout
    volume = f"{stack.name}_secrets"
    code = "import pathlib; [print(p.read_text()) for p in pathlib.Path('/kept').iterdir()]"
    mount = f"--volume={volume}:/kept:ro"
    passwords = docker(
        *("run", "--rm", "--user=0:0", "--network=none", mount, "airlift/app:local"),
        *("python", "-c", code),
    ).split()
    assert len(passwords) == 6
    assert [word for word in passwords if word in seen] == []
    held = stack.compose("exec", "-T", "app", "sh", "-c", "ls -ln /run/secrets").stdout
    assert len(re.findall(r"^-r-------- +1 10001 ", held, re.MULTILINE)) == 3
    assert "WARNING: Grafana's password is the example's" in stack.compose("logs", "secrets").stdout


def test_prometheus_scrapes_everything_and_knows_its_rules(stack: Stack) -> None:
    jobs = {"app", "worker", "postgres", "redis", "nginx", "node", "prometheus", "alertmanager"}
    stack.eventually(
        lambda: jobs == {one["metric"]["job"] for one in stack.query("up == 1")}, seconds=60
    )
    for series in ("pg_up == 1", "redis_up == 1", "nginx_up == 1", "ALERTS or vector(0)"):
        assert stack.query(series), series


def expressions() -> list[str]:
    """Return every query of the dashboards, with what Grafana would put into it."""
    found = set()
    for path in (ROOT / "roles/monitoring/files/dashboards").glob("*.json"):
        for text in re.findall(r'"expr": "((?:[^"\\]|\\.)*)"', path.read_text()):
            query = json.loads(f'"{text}"').replace("$__rate_interval", "1m")
            found.add(re.sub(r'=~"\$\w+"', '=~".*"', query))
    return sorted(found)


def test_every_query_of_the_dashboards_has_an_answer(stack: Stack) -> None:
    """Two tell of what should not be: targets that are down, and a release that came just now."""
    quiet = {one for one in expressions() if one == "up == 0" or " unless " in one}
    assert len(quiet) == 2
    assert len(expressions()) > 25
    silent = set(expressions()) - quiet

    def answered() -> bool:
        silent.difference_update([query for query in silent if stack.query(query)])
        return not silent

    stack.eventually(answered, seconds=40, what=lambda: silent)


def test_three_replicas_share_the_work(stack: Stack) -> None:
    stack.up("--no-deps", "--scale", "app=3", "app")
    stack.ready()
    replicas = stack.compose("ps", "--quiet", "app").stdout.split()
    assert len(replicas) == 3

    def all_asked() -> bool:
        assert stack.request("GET", "/predict")[0] == 200
        return all('"/predict"' in docker("logs", one) for one in replicas)

    stack.eventually(all_asked)
    stack.up("--no-deps", "--scale", "app=1", "app")


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_a_restart_of_a_service_is_survived(stack: Stack, service: str) -> None:
    stack.compose("restart", "--timeout", "10", service)
    stack.ready()
    name = f"after-{service}-{uuid.uuid4()}"
    stack.eventually(lambda: stack.request("POST", "/items", {"name": name})[0] == 201)
    assert name in json.dumps(stack.request("GET", "/items")[2])


def test_a_process_that_dies_is_started_again(stack: Stack) -> None:
    container = stack.container("app")
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container)), signal.SIGKILL)
    stack.eventually(
        lambda: int(docker("inspect", "--format", "{{.RestartCount}}", container)) == 1
    )
    stack.ready()


def test_development_reloads_changed_code(stack: Stack, tmp_path: Path) -> None:
    """The profile `dev`, on a copy of the code."""
    code = tmp_path / "app"
    subprocess.run(["cp", "-r", str(ROOT / "app"), str(code)], check=True)
    override = tmp_path / "dev.yml"
    override.write_text(f"services: {{dev: {{volumes: ['{code}:/srv/app:ro']}}}}\n")
    tmp_path.chmod(0o755)
    files = ("-f", str(ROOT / "docker-compose.yml"), "-f", str(override))
    stack.compose(*files, "--profile", "dev", "up", "--detach", "--no-build", "--no-deps", "dev")

    def version() -> str:
        return str(stack.request("GET", "/", port="DEV_PORT")[2]["version"])

    before = stack.eventually(version)
    init = code / "__init__.py"
    init.write_text(init.read_text().replace(f'"{before}"', '"9.9.9"'))
    stack.eventually(lambda: version() == "9.9.9")
    stack.compose("--profile", "dev", "rm", "--stop", "--force", "dev")


def test_down_with_volumes_leaves_nothing(stack: Stack) -> None:
    assert stack.left() != []
    stack.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
    assert stack.left() == []
