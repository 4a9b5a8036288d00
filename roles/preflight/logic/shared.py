"""Checks of the shared address: of the settings on the jump host, and of each edge."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Check = dict[str, Any]
#: Every address of a host.
ANYWHERE = "0.0.0.0"  # noqa: S104 - compared, nothing listens here


def _check(fact: str, need: str, fix: str, level: str = "error") -> Check:
    """Return a check that does not hold."""
    words = {"fact": fact, "need": need, "fix": fix, "level": level}
    return {"name": "shared address", "ok": False, **words}


def _interface(shared: str) -> ipaddress.IPv4Interface | None:
    """Return the address with its network; None where it is not written so."""
    try:
        found = ipaddress.IPv4Interface(shared)
    except ValueError:
        return None
    ends = (found.network.network_address, found.network.broadcast_address)
    return None if "/" not in shared or found.ip in ends else found


def of_settings(site: Mapping[str, Any]) -> list[Check]:
    """Return the wrong settings of a site.

    `site` has shared, router_id, addresses (host: address), published (edge: where its containers
    publish their ports) and containers (their subnet).
    """
    return list(_settings(site)) if site["shared"] else []


def _settings(site: Mapping[str, Any]) -> Iterator[Check]:
    wanted = _interface(site["shared"])
    if wanted is None:
        yield _check(
            f"site_shared_address {site['shared']}",
            "an address of the edges' network, with the length of the network's prefix",
            "write it like 10.20.1.100/24",
        )
    elif owners := [host for host, one in site["addresses"].items() if one == str(wanted.ip)]:
        yield _check(
            f"{wanted.ip} is the own address of {', '.join(owners)}",
            "an address that no host has by itself",
            "take a free address of the edges' network for site_shared_address",
        )
    elif wanted.ip in ipaddress.ip_network(site["containers"], strict=False):
        yield _check(
            f"{wanted.ip} is inside {site['containers']}, the range of the containers",
            "an address of the edges' network",
            "correct site_shared_address",
        )
    if str(site["router_id"]) not in map(str, range(1, 256)):
        yield _check(
            f"site_shared_router_id {site['router_id']}",
            "a number from 1 to 255",
            "choose one that no other group of VRRP in that segment has",
        )
    if len(site["published"]) == 1:
        yield _check(
            f"{', '.join(site['published'])} is the only host in zone dmz",
            "two edges, or none takes the address over",
            "add a second edge, or keep the address for later",
            "warning",
        )
    for host, address in site["published"].items():
        if address != ANYWHERE:
            yield _check(
                f"{host} publishes the ports of its containers on {address} only",
                f"ports on every address of an edge, also on {site['shared']}",
                f"remove container_publish_address for {host}: the firewall decides who reaches it",
            )


def of_host(site: Mapping[str, Any], said: Mapping[str, Any]) -> list[Check]:
    """Return what is wrong on an edge.

    `site` is as above. `said` has the edge's facts, the folder of the release's packages for it,
    its system (of bundle/systems.yml), whether it is the first edge, and the hardware addresses of
    all edges; empty for one that was not asked.
    """
    return list(_host(site, said)) if site["shared"] else []


def _host(site: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[Check]:
    facts = said["facts"]
    if facts["problem"]:
        fact, _, fix = str(facts["problem"]).partition(": correct ")
        yield _check(fact, "an interface in its network", f"correct {fix}")
    others = sorted(set(facts["answered"]) - set(said["hardware"]))
    if others:
        address, link = str(site["shared"]).partition("/")[0], facts["interface"]
        yield _check(
            f"{', '.join(others)} answers for {address} on {link}",
            "an address that no other machine has",
            f"find that machine (on the host: arping -I {link} {address}) and give it another "
            "address, or take another one for site_shared_address",
            "error" if all(said["hardware"]) else "warning",
        )
    wanted = said["system"].get("shared_address") or ["keepalived"]
    if not facts["installed"] and (lacking := set(wanted) - _packages(said["packages"])):
        yield _check(
            f"no keepalived, and the release has no package {', '.join(sorted(lacking))} for it",
            "keepalived, on the host or in the release",
            "install it from the client's own packages, or ask the vendor for a bundle with it",
        )
    edges = {str(site["addresses"].get(host)) for host in site["published"]}
    for gone in sorted(set(facts["peers"]) - edges):
        # From then on its adverts are refused: it hears nobody, and would take the address, too.
        if said["first"]:
            yield _check(
                f"{gone} shares {str(site['shared']).partition('/')[0]}, and is no edge any more",
                "an address that only edges of the inventory take",
                f"log in to {gone} and type: sudo systemctl disable --now airlift-address; if it "
                "is lost, never start it again with its old disk",
                "warning",
            )
    if said["first"] and not facts["configured"]:
        yield _check(
            f"site_shared_router_id is {site['router_id']}",
            "a number that no other group of VRRP in this network segment has",
            "ask the client's network team which numbers their routers use; change it if taken",
            "info",
        )


def _packages(folder: str) -> set[str]:
    """Return the names of the packages in a repository of the release."""
    try:
        index = Path(folder, "Packages").read_text(encoding="utf-8")
    except OSError:
        return set()
    return set(re.findall(r"^Package: (\S+)$", index, re.MULTILINE))
