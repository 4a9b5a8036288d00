"""On every host, each flow of the table is open and everything else is closed.

The test derives all pairs of zone and port from ``site_flows``. A listener answers on each unused
port, so only a filter can close a port. Each denied connection is also made once without the
hosts' tables, to show that the port can be reached when no table closes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from scripts.journey import Journey
from scripts.lab import Lab
from tests.e2e.support import (
    HOSTS,
    PORTS,
    SITE_DEFAULTS,
    ZONES,
    address,
    connect,
    listening,
    zone_of,
)

# Sources: a host of each zone, a container on it, the jump host, and a client outside the site.
HOST_OF = {zone_of(host): host for host in reversed(HOSTS)}
SOURCES = [*(f"{kind} in {zone}" for zone in ZONES for kind in ("host", "container"))]
SOURCES += ["jump host", "client"]
UNIT = "airlift-firewall.service"

#: Runs a program on the host with the network of the first container that is on Airlift's bridge.
_IN_CONTAINER = """
id=$(docker ps --quiet --filter network=airlift | head -n 1)
pid=$(docker inspect --format '{{.State.Pid}}' "$id")
exec nsenter --target "$pid" --net python3 - "$@"
"""


def machine_of(source: str) -> str:
    """Return the lab machine on which a source runs."""
    named = {"jump host": "jump", "client": "router"}
    return named.get(source) or HOST_OF[source.rpartition(" ")[2]]


def allowed(source: str, host: str, port: str) -> bool:
    """Return whether the flow table allows one connection."""
    senders = {"jump host": {"mgmt", "any"}, "client": {"any"}}.get(source)
    if senders is None:
        senders = {source.rpartition(" ")[2]}
        if machine_of(source) == host:
            # A container may connect to its own host; clients may come from any address.
            senders |= {"self", "any"}
    return any(
        flow["from"] in senders and flow["to"] in (zone_of(host), "all") and port in flow["ports"]
        for flow in SITE_DEFAULTS["site_flows"]
    )


def pairs(source: str) -> list[tuple[str, str]]:
    """Return every host and port that a source is to try; a host's own loopback is no flow."""
    hosts = [h for h in HOSTS if source.startswith("container") or h != machine_of(source)]
    return [(host, port) for host in hosts for port in PORTS]


def ask(lab: Lab, source: str) -> dict[tuple[str, str], str]:
    """Try every connection of one source."""
    targets = {f"{address(host)}:{PORTS[port]}": (host, port) for host, port in pairs(source)}
    if source.startswith("container"):
        answers = connect(lab, machine_of(source), list(targets), within=_IN_CONTAINER)
    else:
        answers = connect(lab, machine_of(source), list(targets))
    return {targets[target]: answer for target, answer in answers.items()}


def ask_all(lab: Lab) -> dict[str, dict[tuple[str, str], str]]:
    """Try everything, the sources at the same time."""
    with ThreadPoolExecutor(len(SOURCES)) as pool:
        return dict(zip(SOURCES, pool.map(lambda source: ask(lab, source), SOURCES), strict=True))


@dataclass
class Answers:
    """Results with the hosts' tables, without them, and with them again."""

    guarded: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    bare: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    again: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)


@contextmanager
def no_tables(lab: Lab) -> Iterator[None]:
    """Remove Airlift's table on every host for a moment."""
    for host in HOSTS:
        lab.console(host, f"systemctl stop {UNIT}")
    try:
        yield
    finally:
        for host in HOSTS:
            lab.console(host, f"systemctl start {UNIT}")


@pytest.fixture(scope="module")
def answers(installed: Journey) -> Answers:
    lab, found = installed.lab, Answers()
    with ExitStack() as stack:
        for host in HOSTS:
            stack.enter_context(listening(lab, host, list(PORTS.values())))
        found.guarded = ask_all(lab)
        with no_tables(lab):
            found.bare = ask_all(lab)
        found.again = ask_all(lab)
    return found


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("source", SOURCES)
def test_flow(answers: Answers, source: str, zone: str, port: str) -> None:
    hosts = [host for host, name in pairs(source) if name == port and zone_of(host) == zone]
    for host in hosts:
        wanted = allowed(source, host, port)
        got = answers.guarded[source][host, port]
        assert (got == "open") is wanted, f"{source} to {host}:{PORTS[port]} is {got}"
        assert (answers.again[source][host, port] == "open") is wanted
        # The port is reachable without the rules, so the table caused the denial above.
        assert answers.bare[source][host, port] == "open"


def test_the_table_is_the_only_one_of_ours_and_loads_at_start(installed: Journey) -> None:
    for host in HOSTS:
        tables = json.loads(installed.lab.console(host, "nft -j list tables").output)
        names = [entry["table"]["name"] for entry in tables["nftables"] if "table" in entry]
        assert names.count("airlift") == 1
        assert installed.lab.console(host, f"systemctl is-enabled {UNIT}").output == "enabled\n"
