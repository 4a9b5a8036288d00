#!/usr/bin/python
"""Return which of the engine's own firewall rules are missing; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_rules
short_description: Return which of the engine's own firewall rules are missing
description:
  - The engine makes its rules when it starts, and those of a container when that starts. A flush
    of the ruleset removes them, and nothing restores them; containers then reach no
    other host, and some of what is meant for them does not arrive.
  - Looks only at what the site's own containers and network need. Changes nothing.
options:
  network:
    description: The network of the site's containers; it need not exist yet.
    type: str
    required: true
  configuration:
    description: The engine's configuration file.
    type: path
    default: /etc/docker/daemon.json
  pidfile:
    description: Where the engine notes its process.
    type: path
    default: /run/docker.pid
"""

EXAMPLES = r"""
- name: Look
  engine_rules:
    network: airlift
  register: found
"""

RETURN = r"""
missing:
  description: What is gone, in words. Empty as well when the engine was told to make no rules.
  returned: always
  type: list
  elements: str
"""

import json  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"


def run(*command: str) -> str:
    """Return what a program said; nothing when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else ""


def rules() -> dict[str, list[str]] | None:
    """Return table: lines of iptables, which the engine uses; None when it cannot be asked."""
    program = shutil.which("iptables-save") or shutil.which("iptables-save", path=PLACES)
    if not program:
        return None
    return {table: run(program, "-t", table).splitlines() for table in ("nat", "filter")}


def makes_rules(configuration: Path, pidfile: Path) -> bool:
    """Tell whether the engine was left to make rules with iptables."""
    try:
        said = json.loads(configuration.read_bytes())
    except (OSError, ValueError, RecursionError):
        said = {}
    # An engine does not start with another form; then the defaults are what the next start has.
    said = said if isinstance(said, dict) else {}
    try:
        flags = Path(f"/proc/{pidfile.read_text().strip()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        flags = []
    other = said.get("firewall-backend", "iptables") != "iptables"
    other = other or b"--firewall-backend=nftables" in flags
    return bool(said.get("iptables", True)) and b"--iptables=false" not in flags and not other


def missing_base(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what is gone of the rules under which all others hang."""
    gone = []
    if not any(re.match(r"-A PREROUTING .*-j DOCKER\b", line) for line in found["nat"]):
        gone.append("the way to published ports")
    if not any(re.match(r"-A FORWARD .*-j DOCKER", line) for line in found["filter"]):
        gone.append("the engine's part of the forward chain")
    return gone


def missing_network(nat: Sequence[str], network: Mapping[str, Any]) -> list[str]:
    """Return what is gone of the rules with which containers reach other hosts."""
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
    """Return the published ports of a container that lead nowhere."""
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


def inspect(kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the engine knows of some things; nothing of those that went away meanwhile."""
    found = run("docker", kind, "inspect", *names) if names else ""
    return list(json.loads(found or "[]"))


def missing(network: str) -> list[str]:
    """Return what is gone, of all that the site needs."""
    found = rules()
    if found is None:
        return []
    gone = missing_base(found)
    for one in inspect("network", [network]):
        gone += missing_network(found["nat"], one)
    running = run("docker", "ps", "--quiet", "--no-trunc", "--filter", "label=airlift.service")
    for one in inspect("container", running.split()):
        gone += missing_ports(found["nat"], one)
    return gone


def main() -> None:
    """Look, and tell."""
    module = AnsibleModule(
        argument_spec={
            "network": {"type": "str", "required": True},
            "configuration": {"type": "path", "default": "/etc/docker/daemon.json"},
            "pidfile": {"type": "path", "default": "/run/docker.pid"},
        },
        supports_check_mode=True,
    )
    options = module.params
    wanted = makes_rules(Path(options["configuration"]), Path(options["pidfile"]))
    try:
        module.exit_json(changed=False, missing=missing(options["network"]) if wanted else [])
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        module.fail_json(msg=f"the engine's firewall rules cannot be read: {error}")


if __name__ == "__main__":
    main()
