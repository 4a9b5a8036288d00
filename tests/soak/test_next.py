"""The command that status prints is typed in the state that prints it, and ends in a clean status.

One named part of `make soak`: `make soak-next`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from scripts.journey import SITE, Journey
from scripts.roundtrip import sql
from tests.e2e.upgrades import NO_PREFLIGHT, offer

HOST = "app-2"

pytestmark = pytest.mark.timeout(2 * 3600)


def report(journey: Journey) -> dict[str, Any]:
    """Return what status finds."""
    journey.play("status")
    found: dict[str, Any] = json.loads(journey.lab.read("jump", f"{SITE}/.airlift/status.json"))
    return found


def on(host: str, script: str) -> Callable[[Journey], object]:
    """Return a fault that a script makes on a host."""
    return lambda journey: journey.lab.console(host, script)


def forgotten_key(journey: Journey) -> None:
    """Make the state that a restore leaves."""
    sql(journey, "DELETE FROM api_keys WHERE client = 'limited'")


FAULTS: dict[str, tuple[Callable[[Journey], object], str]] = {
    "forwarding is off": (on(HOST, "sysctl -w net.ipv4.ip_forward=0"), HOST),
    "all firewall rules are gone": (on(HOST, "nft flush ruleset"), HOST),
    "a worker is gone": (on(HOST, "docker rm --force airlift-worker-green"), "worker-green"),
    "a replica is gone": (on(HOST, "docker rm --force airlift-app-green"), "app-green"),
    "the standby is gone": (on(HOST, "docker rm --force airlift-app-blue"), "app-blue"),
    "Nginx is gone": (on("edge-1", "docker rm --force airlift-edge"), "edge"),
    "the watch is stopped": (on("edge-1", "systemctl stop airlift-edge"), "edge"),
    "the database lost a key": (forgotten_key, "limited"),
}


@pytest.fixture(scope="module")
def upgraded(installed: Journey) -> Journey:
    offer(installed)
    installed.play("upgrade", *NO_PREFLIGHT)
    return installed


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_printed_mends_it(upgraded: Journey, fault: str) -> None:
    journey = upgraded
    breaking, named = FAULTS[fault]
    breaking(journey)
    # Status reports a silent watch after ten seconds.
    time.sleep(12)
    found = report(journey)
    assert found["verdict"] != "ok"
    assert named in found["sentence"], found["sentence"]
    print(found["sentence"], found["next"], sep="\n")
    journey.lab.ssh(f"cd /opt/airlift/current && {found['next']}")
    deadline = time.monotonic() + 120
    while (found := report(journey))["verdict"] != "ok":
        assert time.monotonic() < deadline, found["problems"]
        time.sleep(3)
    journey.smoke()
