"""The network of the site's containers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.host_tools import RefusedError, run


def inspect(kind: str, *names: str) -> list[dict[str, Any]]:
    """Return the engine's records of these objects; omit those that were removed meanwhile."""
    found = run("docker", kind, "inspect", *names).stdout if names else ""
    return list(json.loads(found or "[]"))


def differs(name: str, options: Mapping[str, str]) -> bool:
    """Return whether to create it; refuse to replace one that has containers."""
    for found in inspect("network", name):
        there = found.get("Options") or {}
        if found["Driver"] == "bridge" and options.items() <= there.items():
            return False
        if found.get("Containers"):
            message = (
                f"the network {name} has other options than Airlift needs ({json.dumps(there)}), "
                "and containers use it: stop them in a maintenance window, remove it "
                f"(docker network rm {name}), then run the same command again"
            )
            raise RefusedError(message)
    return True


def create(name: str, options: Mapping[str, str]) -> None:
    """Create it; remove a network with other options first."""
    if inspect("network", name):
        run("docker", "network", "rm", name)
    words = [word for key, value in options.items() for word in ("--opt", f"{key}={value}")]
    done = run("docker", "network", "create", "--driver", "bridge", *words, name)
    if done.returncode:
        message = f"docker network create {name}: {done.stderr.strip()}"
        raise RefusedError(message)
