"""What takes minutes: scrapes of new replicas, alerts under traffic, data that is kept."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
import uuid
from typing import Any

import pytest

from tests.stack.stackkit import Stack
from tests.unit.app.appkit import ROOT

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not os.environ.get("AIRLIFT_SOAK"), reason="make soak-stack"),
]


def alerts(stack: Stack, **labels: str) -> list[dict[str, Any]]:
    """Return what Alertmanager holds, which is what an on-call person would be told."""
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
