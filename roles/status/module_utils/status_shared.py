"""Whether a host holds the address that the edges share, and whether it could."""

from __future__ import annotations

from typing import Any

from ansible.module_utils import host_addresses, host_tools, status_rules


def reason(agent: str) -> str:
    """Return why the edge may take no traffic, as the agent tells keepalived; empty when it may."""
    done = host_tools.run(agent, "fit", seconds=10)
    if done.returncode == 0:
        return ""
    said = " ".join((done.stderr or done.stdout).split())
    return said.replace("airlift-swap: ", "", 1) or f"{agent} fit ended with {done.returncode}"


def look(given: dict[str, Any]) -> dict[str, Any]:
    """Return the facts; nothing on a host that shares no address."""
    if not given:
        return {}
    try:
        held = host_addresses.holder(host_addresses.places(), given["address"])
        error = ""
    except host_tools.RefusedError as found:
        held, error = "", str(found)
    state = status_rules.run("systemctl", "is-active", given["unit"])[1].strip()
    return {
        "held": held,
        "error": error,
        "runs": state == "active",
        "enabled": status_rules.enabled(given["unit"]),
        "unfit": reason(given["agent"]),
    }
