"""A faulty app host under load: what clients notice, what the edge does, and the recovery."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from scripts.journey import Journey, JourneyError
from scripts.lab import Lab
from scripts.load.report import Result

HOST = "app-2"
#: After so many seconds no request may go to a faulty replica.
GRACE = 5.0
#: Phases of the load. A request belongs to the phase in which it was sent.
STEADY, GRACED, SICK, BACK = "steady", f"sick, first {GRACE:.0f} s", "sick", "back"

_CUT = """nft "table inet airlift_test { chain cut {
type filter hook prerouting priority raw; ip saddr $1 tcp dport 5432 drop; }; }"
"""


@contextlib.contextmanager
def frozen(lab: Lab) -> Iterator[None]:
    """Freeze the host: its kernel accepts connections, but no process answers."""
    lab.docker("pause", lab.name(HOST))
    try:
        yield
    finally:
        lab.docker("unpause", lab.name(HOST))


@contextlib.contextmanager
def cut_from_postgres(lab: Lab) -> Iterator[None]:
    """Drop everything that the host sends to Postgres, without an error."""
    # The address in the site's network. Those of the engine's own networks come first.
    found = json.loads(lab.console(HOST, "ip -json -4 address show dev eth0").output)
    address = found[0]["addr_info"][0]["local"]
    lab.console("data-1", _CUT, address)
    try:
        yield
    finally:
        lab.console("data-1", "nft delete table inet airlift_test")


@contextlib.contextmanager
def without_service(lab: Lab) -> Iterator[None]:
    """Kill the service's processes, and keep them from restarting."""
    name = f"airlift-app-{replicas(lab)[HOST]['colour']}"
    lab.console(HOST, 'docker kill "$1"', name)
    try:
        yield
    finally:
        lab.console(HOST, 'docker start "$1"', name)


@contextlib.contextmanager
def slowed(lab: Lab) -> Iterator[None]:
    """Limit the host's bandwidth, so that its answers are late but correct."""
    lab.console(HOST, "tc qdisc add dev eth0 root tbf rate 256kbit burst 3000 latency 4s")
    try:
        yield
    finally:
        lab.console(HOST, "tc qdisc del dev eth0 root")


SICKNESSES: dict[str, Callable[[Lab], AbstractContextManager[None]]] = {
    "frozen": frozen,
    "cut from Postgres": cut_from_postgres,
    "without service": without_service,
    "slowed": slowed,
}


@dataclass(frozen=True)
class Found:
    """The clients' results, and the agent's report while the host was faulty."""

    result: Result
    shown: dict[str, Any]

    @property
    def failed(self) -> int:
        """Return the failed requests, without those of the first seconds of the fault."""
        phases = self.result.phases.items()
        return sum(phase.failed for name, phase in phases if name != GRACED)


def show(lab: Lab) -> dict[str, Any]:
    """Return the report of the agent on the edge."""
    found: dict[str, Any] = json.loads(lab.console("edge-1", "airlift-swap show").output)
    return found


def replicas(lab: Lab) -> dict[str, dict[str, str]]:
    """Return the replicas as the edge's watch reports them."""
    found: dict[str, dict[str, str]] = show(lab)["replicas"]
    return found


def healthy(lab: Lab, *, seconds: float = 60) -> None:
    """Wait until the edge sends requests to every replica."""
    deadline = time.monotonic() + seconds
    while not (seen := replicas(lab)) or any(one["state"] == "out" for one in seen.values()):
        if time.monotonic() > deadline:
            message = f"not all replicas serve after {seconds:.0f} s: {seen}"
            raise JourneyError(message)
        time.sleep(0.5)


def measure(
    journey: Journey, sickness: str = "frozen", *, seconds: float = 15, rate: float = 30
) -> Found:
    """Make one app host faulty for a while under load, and wait until it serves again."""
    lab = journey.lab
    healthy(lab)
    with journey.load(rate) as load:
        load.phase(STEADY)
        time.sleep(3)
        load.phase(GRACED)
        with SICKNESSES[sickness](lab):
            time.sleep(GRACE)
            load.phase(SICK)
            time.sleep(seconds)
            shown = show(lab)
        healthy(lab)
        load.phase(BACK)
        time.sleep(3)
    return Found(load.result, shown)
