"""Filters with which preflight's checks evaluate the site, the release and a host's facts."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def preflight_findings(checks: Iterable[Mapping[str, Any]], host: str) -> list[dict[str, str]]:
    """Return the failed checks, as rows of the report."""
    return [
        {
            "host": host,
            "check": str(check["name"]),
            "fact": str(check["fact"]),
            "need": str(check["need"]),
            "fix": str(check["fix"]),
            "level": str(check.get("level", "error")),
        }
        for check in checks
        if not check["ok"]
    ]


def preflight_ports(
    flows: Iterable[Mapping[str, Any]],
    zones: Sequence[str],
    ports: Mapping[str, int],
    keep: Sequence[str],
) -> list[int]:
    """Return the ports that a host of these zones serves, except those of others (SSH)."""
    names = {
        name
        for flow in flows
        if flow["to"] == "all" or flow["to"] in zones
        for name in flow["ports"]
    }
    return sorted(int(ports[name]) for name in names - set(keep) if name in ports)


def preflight_second_hosts(
    groups: Mapping[str, Sequence[str]], zones: Mapping[str, str], single: Sequence[str]
) -> list[str]:
    """Return each zone that has several hosts where one is allowed, with their names."""
    members = {zone: list(groups.get(zones[zone], [])) for zone in single}
    return [f"{zone} has {', '.join(hosts)}" for zone, hosts in members.items() if len(hosts) > 1]


def preflight_image_bytes(
    manifest: Mapping[str, Any],
    components: Sequence[str],
    zones: Sequence[str],
    absent: Sequence[str],
) -> int:
    """Return the disk space that the absent ones of a host's images still need."""
    total = sum(int(manifest["zones"].get(zone, {}).get("bytes", 0)) for zone in zones)
    sizes = {
        name: int(manifest["components"][name]["unpacked_size"])
        for name in components
        if name in manifest["components"]
    }
    missing = sum(size for name, size in sizes.items() if name in absent)
    return total * missing // max(1, sum(sizes.values()))


def preflight_space(
    space: Mapping[str, Mapping[str, Any]], needs: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Add up the space that each file system needs; return whether each has too little."""
    free: dict[int, int] = {}
    wanted: dict[int, dict[str, int]] = {}
    for path, need in needs.items():
        device = int(space[path]["device"])
        free[device] = int(space[path]["free"])
        wanted.setdefault(device, {})[path] = int(need)
    return [
        {
            "short": sum(paths.values()) > free[device],
            "fact": f"{preflight_bytes(free[device])} free for {', '.join(paths)}",
            "needs": " + ".join(
                f"{preflight_bytes(need)} in {path}" for path, need in paths.items()
            ),
        }
        for device, paths in wanted.items()
    ]


def preflight_taken_port(taken: Mapping[str, Any]) -> str:
    """Describe the process that holds a port."""
    return f"{taken['port']} by {taken['process']} (pid {taken['pid']})"


def preflight_bytes(number: float) -> str:
    """Return a number of bytes in a readable unit."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"


def preflight_lacking(manifest: Mapping[str, Any], store: str) -> list[str]:
    """Return the components that the jump host's store cannot deliver."""
    blobs = Path(store) / "blobs" / "sha256"

    def there(digest: str, size: int | None = None) -> bool:
        path = blobs / digest.removeprefix("sha256:")
        return path.is_file() and (size is None or path.stat().st_size == size)

    return [
        name
        for name, component in manifest["components"].items()
        if not (
            there(component["manifest_digest"])
            and there(component["config_digest"])
            and all(there(layer["digest"], layer["size"]) for layer in component["layers"])
        )
    ]


def preflight_duplicates(addresses: Mapping[str, str]) -> list[str]:
    """Return the addresses that several hosts claim, with their hosts."""
    counted = Counter(addresses.values())
    return [
        f"{address} ({', '.join(host for host, one in addresses.items() if one == address)})"
        for address, times in counted.items()
        if times > 1
    ]


def preflight_inside(addresses: Mapping[str, str], network: str) -> list[str]:
    """Return the hosts whose address is inside a network."""
    subnet = ipaddress.ip_network(network, strict=False)
    found = []
    for host, address in addresses.items():
        try:
            if ipaddress.ip_address(address) in subnet:
                found.append(host)
        except ValueError:
            continue
    return found


def preflight_no_addresses(addresses: Mapping[str, str]) -> list[str]:
    """Return the hosts whose address is a name: firewall rules need numbers."""

    def number(address: str) -> bool:
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            return False
        return True

    return [host for host, address in addresses.items() if not number(address)]


def preflight_no_networks(networks: Iterable[str]) -> list[str]:
    """Return the entries that are neither an IPv4 address nor a network."""
    wrong = []
    for network in networks:
        try:
            ipaddress.IPv4Network(network, strict=False)
        except ValueError:
            wrong.append(str(network))
    return wrong


def preflight_covers(networks: Sequence[str], address: str) -> bool:
    """Return whether an address is in one of the networks; invalid networks are another finding."""
    good = [one for one in networks if one not in preflight_no_networks(networks)]
    number = ipaddress.ip_address(address)
    return any(number in ipaddress.ip_network(network, strict=False) for network in good)


def preflight_flow_problems(
    flows: Iterable[Mapping[str, Any]], zones: Iterable[str], ports: Mapping[str, int]
) -> list[str]:
    """Return the unknown names in the flow table."""
    known = set(zones)
    problems = []
    for flow in flows:
        problems += [
            f"port {name} in flow {flow['name']!r}" for name in flow["ports"] if name not in ports
        ]
        if flow["from"] not in known | {"mgmt", "any", "self"}:
            problems.append(f"zone {flow['from']} in flow {flow['name']!r}")
        if flow["to"] not in known | {"all"}:
            problems.append(f"zone {flow['to']} in flow {flow['name']!r}")
    return problems


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            name: function
            for name, function in globals().items()
            if name.startswith("preflight_") and callable(function)
        }
