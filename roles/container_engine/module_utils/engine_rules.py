"""Find the engine's own firewall rules that are missing.

The engine creates its rules at its start, and those of a container at the container's start. A
flush of the ruleset removes them, and nothing restores them. Then containers cannot reach other
hosts, and some of their incoming traffic is lost. Only rules for the site's own containers and
network are checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.engine_configuration import flags
from ansible.module_utils.engine_network import inspect
from ansible.module_utils.host_tools import ABSENT, RefusedError, run

MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"


def rules() -> dict[str, list[str]] | None:
    """Return table: lines of iptables, which the engine uses; None if it cannot be queried."""
    found = {}
    for table in ("nat", "filter"):
        done = run("iptables-save", "-t", table)
        if done.returncode == ABSENT:
            return None
        if done.returncode:
            message = f"the engine's firewall rules cannot be read: {done.stderr.strip()}"
            raise RefusedError(message)
        found[table] = done.stdout.splitlines()
    return found


def makes_rules(configuration: Path, pidfile: Path) -> bool:
    """Return whether the engine is configured to create rules with iptables."""
    try:
        said = json.loads(configuration.read_bytes())
    except (OSError, ValueError, RecursionError):
        said = {}
    # The engine does not start with an invalid file; then the defaults apply.
    said = said if isinstance(said, dict) else {}
    given = flags(pidfile)
    other = said.get("firewall-backend", "iptables") != "iptables"
    other = other or "--firewall-backend=nftables" in given
    return bool(said.get("iptables", True)) and "--iptables=false" not in given and not other


def missing_base(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the missing rules on which all others depend."""
    gone = []
    if not any(re.match(r"-A PREROUTING .*-j DOCKER\b", line) for line in found["nat"]):
        gone.append("the way to published ports")
    if not any(re.match(r"-A FORWARD .*-j DOCKER", line) for line in found["filter"]):
        gone.append("the engine's part of the forward chain")
    return gone


def missing_network(nat: Sequence[str], network: Mapping[str, Any]) -> list[str]:
    """Return the missing rules that let containers reach other hosts."""
    options = network.get("Options") or {}
    if network.get("Internal") or options.get(MASQUERADE, "true") == "false":
        return []
    subnets = [one["Subnet"] for one in (network.get("IPAM") or {}).get("Config") or ()]
    return [
        f"the address under which {subnet} reaches other hosts"
        for subnet in subnets
        if ":" not in subnet
        and not any(
            line.startswith(f"-A POSTROUTING -s {subnet} ") and "MASQUERADE" in line for line in nat
        )
    ]


def missing_ports(nat: Sequence[str], container: Mapping[str, Any]) -> list[str]:
    """Return the published ports of a container that have no rule."""
    settings = container["NetworkSettings"]
    addresses = [one.get("IPAddress") for one in (settings.get("Networks") or {}).values()]
    wanted = [
        (one["HostPort"], inner.partition("/")[0])
        for inner, published in (settings.get("Ports") or {}).items()
        for one in published or ()
        if ":" not in one.get("HostIp", "")
    ]
    return [
        f"port {outer} of {container['Name'].lstrip('/')}"
        for outer, inner in wanted
        if not any(
            f"--dport {outer} -j DNAT --to-destination {address}:{inner}" in line
            for line in nat
            for address in addresses
        )
    ]


def missing(network: str) -> list[str]:
    """Return all missing rules that the site needs."""
    found = rules()
    if found is None:
        return []
    gone = missing_base(found)
    for one in inspect("network", network):
        gone += missing_network(found["nat"], one)
    running = run("docker", "ps", "--quiet", "--no-trunc", "--filter", "label=airlift.service")
    for one in inspect("container", *running.stdout.split()):
        gone += missing_ports(found["nat"], one)
    return gone
