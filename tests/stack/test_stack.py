"""The running local stack: the contract's rows, isolation, restarts, and no remains."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bundle.builder.problems import Problem
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


#: Each script's effect, as Prometheus shows it.
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


@pytest.fixture(scope="module")
def source(stack: Stack) -> Iterator[str]:
    """What `api` jobs read, on the network that is their way out."""
    with stack.beside("app", API, "api-source"):
        yield "http://api-source:8088"


def test_api_jobs_and_cancelling(door: Any, stack: Stack, source: str) -> None:
    """A7 with an `api` source, A10."""
    job = {"source_type": "api", "config": {"url": f"{source}/reviews"}}
    accepted = door.request("POST", "/api/v1/jobs/trigger", job)
    assert accepted[0] == 202, accepted[2]
    status, result = stack.result_of(accepted[2]["job_id"])
    assert (status, result["status"]) == (200, "succeeded")
    job = {"source_type": "api", "config": {"url": "http://api-away:8088/"}}
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


def test_networks_keep_apart_what_does_not_belong_together(stack: Stack) -> None:
    ids = stack.containers()
    inspect = ("inspect", "--format", "{{json .NetworkSettings.Networks}}")
    names = ("app", "postgres", "redis", "worker")
    found = docker(*inspect, *(ids[name] for name in names)).splitlines()
    addresses = {
        f"{service}@{network.rpartition('_')[2]}": one["IPAddress"]
        for service, line in zip(names, found, strict=True)
        for network, one in json.loads(line).items()
    }
    database = (f"{addresses['postgres@data']}:5432", "postgres:5432")
    store = f"{addresses['redis@data']}:6379"
    # Every address of the app, and the worker.
    everywhere = [f"{one}:8000" for name, one in addresses.items() if name.startswith("app@")]
    service = [*everywhere, "app:8000", f"{addresses['worker@data']}:8003"]
    asked = {
        "data": [*database, store, *service],
        "front": ["app:8000", "nginx:8080", *database],
        "app": ["app:8000", "worker:8003", *database],
        "monitor": ["nginx:8080", *database],
    }
    with ThreadPoolExecutor() as pool:
        answers = dict(
            zip(asked, pool.map(lambda one: stack.reach(one, *asked[one]), asked), strict=True)
        )
    # Listed flows are open, otherwise the rest would prove nothing; unlisted ones are closed.
    opened = {
        network: {target for target, how in seen.items() if how == "open"}
        for network, seen in answers.items()
    }
    assert opened == {
        "data": {*database, store},
        "front": {"app:8000", "nginx:8080"},
        "app": {"app:8000", "worker:8003"},
        "monitor": {"nginx:8080"},
    }
    # Neither is the app reached from Postgres and Redis themselves.
    way = f"exec 3<>/dev/tcp/{addresses['app@data']}/8000"
    for name in ("postgres", "redis"):
        with pytest.raises(Problem, match=r"docker exec"):
            docker("exec", ids[name], "timeout", "3", "bash", "-c", way)
    # The engine publishes no port of the data services; only two services have ports.
    inspect = ("network", "inspect", "--format")
    form = "{{.Internal}} {{range .Containers}}{{.Name}} {{end}}"
    networks = docker(*inspect, form, f"{stack.name}_data", f"{stack.name}_front").splitlines()
    assert [line.split()[0] for line in networks] == ["true", "false"]
    members = {name.removeprefix(f"{stack.name}-") for name in networks[1].split()[1:]}
    assert members == {"app-1", "nginx-1"}


def test_every_container_has_the_rights_and_bounds_of_the_file(stack: Stack) -> None:
    """What the engine made of docker-compose.yml, which tests/unit/stack reads."""
    for name, one in stack.containers().items():
        (found,) = json.loads(docker("inspect", one))
        host = found["HostConfig"]
        assert found["Config"]["User"] not in {"", "root", "0:0"} or name == "secrets", name
        assert host["CapDrop"] == ["ALL"], name
        assert host["CapAdd"] == (["CHOWN"] if name == "secrets" else None), name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert (host["ReadonlyRootfs"], host["Privileged"]) == (True, False), name
        assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0, name
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}, name
        published = [way for ways in (host["PortBindings"] or {}).values() for way in ways]
        assert {way["HostIp"] for way in published} <= {"127.0.0.1"}, name


def test_a_password_is_in_no_environment_and_no_log(stack: Stack) -> None:
    """Each is in the volumes of those who need it, readable by their user only."""
    ids = stack.containers()
    seen = docker("inspect", *ids.values()) + stack.compose("logs", "--no-log-prefix").stdout
    volume = f"{stack.name}_secrets"
    code = "import pathlib; [print(p.read_text()) for p in pathlib.Path('/kept').iterdir()]"
    mount = f"--volume={volume}:/kept:ro"
    passwords = docker(
        *("run", "--rm", "--user=0:0", "--network=none", mount, "airlift/app:local"),
        *("python", "-c", code),
    ).split()
    assert len(passwords) == 6
    assert [word for word in passwords if word in seen] == []
    held = docker("exec", ids["app"], "ls", "-ln", "/run/secrets")
    assert len(re.findall(r"^-r-------- +1 10001 ", held, re.MULTILINE)) == 3
    assert "WARNING: Grafana's password is the example's" in seen


def test_prometheus_scrapes_everything_and_knows_its_rules(stack: Stack) -> None:
    jobs = {"app", "worker", "postgres", "redis", "nginx", "node", "prometheus", "alertmanager"}
    stack.eventually(
        lambda: jobs == {one["metric"]["job"] for one in stack.query("up == 1")}, seconds=60
    )
    for series in ("pg_up == 1", "redis_up == 1", "nginx_up == 1", "ALERTS or vector(0)"):
        assert stack.query(series), series


@pytest.mark.parametrize("script", TRAFFIC)
def test_prometheus_shows_what_a_traffic_script_is_for(
    stack: Stack, traffic: Scripts, script: str
) -> None:
    said, _ = traffic[script].communicate(timeout=120)
    assert traffic[script].returncode == 0, said
    assert re.search(r"^ANSWER +REQUESTS\n", said, re.MULTILINE)
    assert "Prometheus  " in said
    assert "Grafana " in said
    # At any time since: on a busy machine the script ended minutes ago.
    kept = f"last_over_time(({TRAFFIC[script]})[1h:5s])"
    found = stack.eventually(lambda: stack.query(kept), seconds=40)
    if script == "04_top_endpoints.sh":
        assert found[0]["metric"]["endpoint"] == "/health"


def expressions() -> list[str]:
    """Return every query of the dashboards, with what Grafana would put into it."""
    found = set()
    for path in (ROOT / "roles/monitoring/files/dashboards").glob("*.json"):
        for text in re.findall(r'"expr": "((?:[^"\\]|\\.)*)"', path.read_text()):
            query = json.loads(f'"{text}"').replace("$__rate_interval", "1m")
            found.add(re.sub(r'=~"\$\w+"', '=~".*"', query))
    return sorted(found)


def test_every_query_of_the_dashboards_has_an_answer(stack: Stack) -> None:
    """Two queries find nothing on a healthy stack: targets that are down, and a recent release."""
    quiet = {one for one in expressions() if one == "up == 0" or " unless " in one}
    assert len(quiet) == 2
    assert len(expressions()) > 25
    silent = set(expressions()) - quiet

    def answered() -> bool:
        silent.difference_update([query for query in silent if stack.query(query)])
        return not silent

    stack.eventually(answered, seconds=40, what=lambda: silent)


def test_a_process_that_dies_is_started_again(stack: Stack) -> None:
    container = stack.container("app")
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container)), signal.SIGKILL)
    stack.eventually(
        lambda: int(docker("inspect", "--format", "{{.RestartCount}}", container)) == 1
    )
    stack.ready()
