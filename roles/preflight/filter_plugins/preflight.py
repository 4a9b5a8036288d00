"""Filters with which preflight's checks evaluate the site, the release and a host's facts."""

from __future__ import annotations

import ipaddress
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.images.delivery.archive import lacking_blobs  # noqa: E402
from roles.preflight.logic import shared  # noqa: E402
from roles.preflight.logic.cut import cut  # noqa: E402
from roles.tls.filter_plugins import tls  # noqa: E402


def preflight_findings(checks: Iterable[Mapping[str, Any]], host: str) -> list[dict[str, str]]:
    """Return the failed checks, as rows of the report."""
    return [
        {
            "host": host,
            "check": str(check["name"]),
            **{key: str(check[key]) for key in ("fact", "need", "fix")},
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


def preflight_size(text: object) -> int:
    """Return a size of Nginx, such as 512k or 2m, in bytes; 0 means no limit to it."""
    word = str(text).strip().lower()
    factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(word[-1:], 1)
    number = int(word.rstrip("kmg") or 0) * factor
    return number or sys.maxsize


def preflight_lacking(manifest: Mapping[str, Any], store: str) -> list[str]:
    """Return the components that the jump host's store cannot deliver."""
    components = manifest["components"].items()
    return [name for name, component in components if lacking_blobs(Path(store), component)]


def preflight_stranger(trusted: str, ca_path: str) -> str:
    """Return whose certificate a host trusts, if it is not this jump host's authority."""
    return tls.tls_stranger(trusted, ca_path)


def preflight_duplicates(addresses: Mapping[str, str]) -> list[str]:
    """Return the addresses that several hosts claim, with their hosts."""
    counted = Counter(addresses.values())
    return [
        f"{address} ({', '.join(host for host, one in addresses.items() if one == address)})"
        for address, times in counted.items()
        if times > 1
    ]


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def preflight_inside(addresses: Mapping[str, str], network: str) -> list[str]:
    """Return the hosts whose address is inside a network."""
    subnet, parse = ipaddress.ip_network(network, strict=False), ipaddress.ip_address
    return [host for host, one in addresses.items() if _parses(parse, one) and parse(one) in subnet]


def preflight_no_addresses(addresses: Mapping[str, str]) -> list[str]:
    """Return the hosts whose address is a name: firewall rules need numbers."""
    return [host for host, one in addresses.items() if not _parses(ipaddress.IPv4Address, one)]


def preflight_no_networks(networks: Iterable[str]) -> list[str]:
    """Return the entries that are neither an IPv4 address nor a network."""
    parse = partial(ipaddress.IPv4Network, strict=False)
    return [str(network) for network in networks if not _parses(parse, network)]


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
        if bool(flow["ports"]) == ("protocol" in flow):
            problems.append(f"ports in flow {flow['name']!r}, which needs some or a protocol")
        if flow["from"] not in known | {"mgmt", "any", "self"}:
            problems.append(f"zone {flow['from']} in flow {flow['name']!r}")
        if flow["to"] not in known | {"all"}:
            problems.append(f"zone {flow['to']} in flow {flow['name']!r}")
    return problems


def preflight_cut(
    connections: Sequence[Mapping[str, Any]], site: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the checks of connections that the firewall would cut."""
    return cut(connections, site)


def preflight_published(edges: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return for each edge the address of its own on which containers publish their ports."""
    return {
        str(one["inventory_hostname"]): str(one.get("container_publish_address", shared.ANYWHERE))
        for one in edges
    }


def preflight_shared_settings(site: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the checks of the shared address's settings that do not hold."""
    return shared.of_settings(site)


def preflight_shared_host(site: Mapping[str, Any], said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the checks of the shared address that do not hold on an edge."""
    return shared.of_host(site, said)


def preflight_sudo_fix(said: str, fixes: Iterable[Mapping[str, str]]) -> str:
    """Return the fix of the first entry whose words are in what was said."""
    return next(one["fix"] for one in fixes if one["words"].lower() in said.lower())


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            name: function
            for name, function in globals().items()
            if name.startswith("preflight_") and callable(function)
        }
