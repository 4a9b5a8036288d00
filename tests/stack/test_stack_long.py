"""Long tests of the stack: restarts, replicas, alerts under traffic, kept data."""

from __future__ import annotations

import json
import subprocess
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.stack.stackkit import LONG_RUNNING, Stack, docker
from tests.unit.app.appkit import ROOT

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.long,
]


def alerts(stack: Stack, **labels: str) -> list[dict[str, Any]]:
    """Return the alerts of Alertmanager, which an on-call person would receive."""
    with urllib.request.urlopen(  # noqa: S310
        stack.url("ALERTMANAGER_PORT", "/api/v2/alerts"), timeout=10
    ) as answer:
        found = json.load(answer)
    return [one for one in found if labels.items() <= one["labels"].items()]


def traffic(stack: Stack, script: str, seconds: int, rate: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(ROOT / "scripts" / script), str(seconds), str(rate)],
        env={**stack.env, "URL": stack.url("HTTP_PORT", "")},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_second_up_changes_nothing_that_runs(stack: Stack) -> None:
    """Before the tests that use --no-deps: Compose takes a service without them for another one."""
    before = stack.containers()
    stack.up()
    after = stack.containers()
    assert {name: after[name] for name in LONG_RUNNING} == {
        name: before[name] for name in LONG_RUNNING
    }
    stack.ready()


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


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_a_restart_of_a_service_is_survived(stack: Stack, service: str) -> None:
    stack.compose("restart", "--timeout", "10", service)
    stack.ready()
    name = f"after-{service}-{uuid.uuid4()}"
    stack.eventually(lambda: stack.request("POST", "/items", {"name": name})[0] == 201)
    assert name in json.dumps(stack.request("GET", "/items")[2])


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


def test_new_replicas_are_scraped_and_gone_ones_forgotten(stack: Stack) -> None:
    def instances() -> int:
        return len(stack.query('up{job="app"} == 1'))

    stack.up("--scale", "app=3")
    stack.eventually(lambda: instances() == 3, seconds=180)
    stack.up("--scale", "app=1")
    stack.eventually(lambda: instances() == 1, seconds=600)


def test_alerts_fire_under_traffic_and_end_after_it(stack: Stack) -> None:
    """HighErrorRatio needs five minutes of errors, HighLatency ten of slow answers."""
    stack.ready()
    errors = traffic(stack, "02_5xx_error_rate.sh", 1020, 4)
    slow = traffic(stack, "03_latency_p95.sh", 1020, 4)
    try:
        stack.eventually(lambda: alerts(stack, alertname="HighErrorRatio"), seconds=1000)
        stack.eventually(lambda: alerts(stack, alertname="HighLatency"), seconds=1000)
    finally:
        for one in (errors, slow):
            one.terminate()
            one.wait(timeout=30)
    ours = 'ALERTS{alertstate="firing",alertname=~"HighErrorRatio|HighLatency"}'
    stack.eventually(lambda: not stack.query(ours), seconds=1200)


def test_a_service_that_is_down_is_an_alert(stack: Stack) -> None:
    stack.compose("stop", "redis")
    stack.eventually(lambda: alerts(stack, alertname="RedisDown"), seconds=300)
    assert stack.request("GET", "/predict")[0] == 200, "without Redis the service serves"
    stack.compose("start", "redis")
    stack.eventually(lambda: not stack.query('ALERTS{alertname="RedisDown"}'), seconds=300)


def test_down_keeps_the_data(stack: Stack) -> None:
    name = f"kept-{uuid.uuid4()}"
    assert stack.request("POST", "/items", {"name": name})[0] == 201
    stack.compose("down", "--timeout", "5")
    stack.up()
    stack.ready()
    assert name in json.dumps(stack.request("GET", "/items")[2])
