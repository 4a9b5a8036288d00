"""The connections of a host that Airlift's firewall would cut, as checks that do not hold."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible.errors import AnsibleFilterError

from roles.firewall.filter_plugins.firewall import firewall_outside_rules, firewall_rules

#: Addresses that one finding names; of more it says how many.
NAMED = 8
#: The table lets a host keep its leased address.
DHCP = ("out", "udp", 67)
SSH = "administration of this host"


class Kind(NamedTuple):
    """What makes connections one finding."""

    program: str
    direction: str
    protocol: str
    port: int


def passes(one: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a rule lets a new connection like this one through."""
    address = ipaddress.ip_address(one["address"])
    return any(
        rule["direction"] == one["direction"]
        and rule["protocol"] == one["protocol"]
        and one["port"] in rule["ports"]
        and any(address in ipaddress.ip_network(network) for network in rule["addresses"])
        for rule in rules
    )


def cut(connections: Sequence[Mapping[str, Any]], site: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a check for each program, direction and port that the firewall would cut.

    `site` has what the rules are made from: flows, outside, zones, address, zone_addresses, ports,
    mgmt, clients, containers (their subnet), ssh (the port) and client (this jump host).
    """
    try:
        rules = firewall_rules(
            # Whatever the flow table says, the table lets administrators in.
            [*site["flows"], {"name": SSH, "from": "mgmt", "to": "all", "ports": [SSH]}],
            host_zones=site["zones"],
            address=site["address"],
            zone_addresses=site["zone_addresses"],
            ports={**site["ports"], SSH: int(site["ssh"])},
            mgmt=site["mgmt"],
            clients=site["clients"],
        ) + firewall_outside_rules(site["outside"], site["zones"])
    except AnsibleFilterError:
        return []  # What is wrong with the flow table is another finding.
    containers = ipaddress.ip_network(site["containers"], strict=False)
    own = {site["address"], site["client"]}
    found: dict[Kind, set[str]] = {}
    for one in connections:
        kind = Kind(one["program"], one["direction"], one["protocol"], int(one["port"]))
        ours = one["address"] in own or ipaddress.ip_address(one["address"]) in containers
        if not ours and kind[1:] != DHCP and not passes(one, rules):
            found.setdefault(kind, set()).add(one["address"])
    return [_check(kind, sorted(addresses), site) for kind, addresses in sorted(found.items())]


def _check(kind: Kind, addresses: list[str], site: Mapping[str, Any]) -> dict[str, Any]:
    many = f" and {len(addresses) - NAMED} more" if len(addresses) > NAMED else ""
    peers = ", ".join(addresses[:NAMED]) + many
    way = "connects to" if kind.direction == "out" else "serves"
    said = f"{kind.program} {way} {peers} ({kind.protocol} {kind.port})"
    return {
        "name": "present connection",
        "ok": False,
        "fact": f"{said}; the firewall will cut it",
        "need": "a flow for what this host needs, and nothing for the rest",
        "fix": _fix(kind, addresses, site),
        "level": "warning",
    }


def _fix(kind: Kind, addresses: list[str], site: Mapping[str, Any]) -> str:
    """Return the setting that allows it, to be copied; the table passes IPv4 only."""
    four = [one for one in addresses if ":" not in one]
    if not four:
        return "give it an IPv4 address of that server: the firewall of Airlift passes no IPv6"
    networks = ", ".join(f"{one}/32" for one in four[:NAMED])
    if kind[1:] == ("in", "tcp", int(site["ssh"])):
        return f"if these may administer the host, add {networks} to site_mgmt_addresses"
    zone = site["zones"][0] if site["zones"] else "all"
    return (
        f"if it is needed, add to site_outside_flows: - {{name: {kind.program}, zone: {zone}, "
        f"direction: {kind.direction}, addresses: [{networks}], protocol: {kind.protocol}, "
        f"ports: [{kind.port}]}}"
    )
