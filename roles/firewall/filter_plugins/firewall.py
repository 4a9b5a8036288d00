"""Filters that convert the site's flow table to the rules of one host."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Rule = dict[str, Any]
#: Protocols without ports, which only hosts speak, never containers; and their numbers. A host need
#: not have /etc/protocols, from which nft knows the names.
PORTLESS = {"vrrp": 112}


def _networks(addresses: Iterable[str], what: str) -> list[str]:
    """Return addresses as sorted IPv4 networks without overlaps, as nftables' sets require."""
    parsed = []
    for address in addresses:
        try:
            parsed.append(ipaddress.IPv4Network(address, strict=False))
        except ValueError:
            message = (
                f"{what}: {address!r} is no IPv4 address or network. Firewall rules need numbers: "
                "where ansible_host is a name, set site_address for that host."
            )
            raise AnsibleFilterError(message) from None
    return [str(network) for network in sorted(ipaddress.collapse_addresses(parsed))]


def _numbers(flow: Mapping[str, Any], ports: Mapping[str, int]) -> list[int]:
    """Return the ports of a flow; none for a protocol without ports."""
    protocol, names = flow.get("protocol", "tcp"), flow["ports"]
    if protocol not in ("tcp", *PORTLESS):
        message = f"flow {flow['name']!r}: protocol {protocol} is not known"
        raise AnsibleFilterError(message)
    if bool(names) == (protocol in PORTLESS):
        message = (
            f"flow {flow['name']!r}: needs {'no ports' if names else 'a port'} with {protocol}"
        )
        raise AnsibleFilterError(message)
    return _ports(names, ports, str(flow["name"]))


def _ports(names: Iterable[str], ports: Mapping[str, int], flow: str) -> list[int]:
    """Return the numbers of named ports; raise an error that names the flow."""
    unknown = [name for name in names if name not in ports]
    if unknown:
        message = f"flow {flow!r}: {', '.join(unknown)} not in site_ports"
        raise AnsibleFilterError(message)
    return sorted({int(ports[name]) for name in names})


def _rule(direction: str, name: str, addresses: list[str], ports: list[int], **other: Any) -> Rule:
    """Return one rule of a host; `addresses` are the other ends."""
    rule = {"direction": direction, "name": name, "addresses": addresses, "ports": ports}
    return {**rule, "containers": False, "protocol": "tcp", **other}


def firewall_rules(
    flows: Sequence[Mapping[str, Any]],
    *,
    host_zones: Sequence[str],
    address: str,
    zone_addresses: Mapping[str, Sequence[str]],
    ports: Mapping[str, int],
    mgmt: Sequence[str],
    clients: Sequence[str],
) -> list[Rule]:
    """Return the rules of one host: {direction, name, addresses, containers, protocol, ports} each.

    `addresses` are the other ends. `containers` is set if the other end is a container of this
    host, which happens if both zones are on it. A protocol without ports is a number.
    """
    rules: list[Rule] = []
    for flow in flows:
        name, source, target = str(flow["name"]), flow["from"], flow["to"]
        numbers = _numbers(flow, ports)
        kind = {"protocol": PORTLESS.get(flow.get("protocol", ""), "tcp")}
        targets = list(zone_addresses) if target == "all" else [target]
        for zone in [*targets, *([] if source in ("mgmt", "any", "self") else [source])]:
            if zone not in zone_addresses:
                message = f"flow {name!r}: {zone} is not in site_zones"
                raise AnsibleFilterError(message)
        if set(targets) & set(host_zones):
            if source == "mgmt":
                others: Iterable[str] = mgmt
            elif source == "any":
                others = clients
            elif source == "self":
                others = []
            else:
                others = set(zone_addresses[source]) - {address}
            addresses = _networks(others, f"flow {name!r}")
            containers = source == "self" or source in host_zones
            containers &= kind["protocol"] == "tcp"
            if addresses or containers:
                rules.append(_rule("in", name, addresses, numbers, containers=containers, **kind))
        if source in host_zones:
            there = {one for zone in targets for one in zone_addresses[zone]} - {address}
            if there:
                addresses = _networks(there, f"flow {name!r}")
                rules.append(_rule("out", name, addresses, numbers, **kind))
    return rules


def firewall_outside_rules(
    flows: Sequence[Mapping[str, Any]], host_zones: Sequence[str]
) -> list[Rule]:
    """Return the rules of one host for the client's own services."""
    return [
        _rule(
            flow["direction"],
            str(flow["name"]),
            _networks(flow["addresses"], f"outside flow {flow['name']!r}"),
            sorted({int(port) for port in flow["ports"]}),
            protocol=flow["protocol"],
        )
        for flow in flows
        if flow["zone"] == "all" or flow["zone"] in host_zones
    ]


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            "firewall_rules": firewall_rules,
            "firewall_outside_rules": firewall_outside_rules,
        }
