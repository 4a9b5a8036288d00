"""Check a host's packet forwarding, our table, the engine's rules, and its disk space."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils import host_tools

DAEMON = Path("/etc/docker/daemon.json")
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def path() -> str:
    """Return a search path for programs: a login over SSH may lack the system's own folders."""
    return f"{os.environ.get('PATH', '')}:{host_tools.PLACES}"


def run(*command: str) -> tuple[int, str]:
    """Return code and output of a program, in English."""
    done = host_tools.run(*command, seconds=20, LC_ALL="C", LANG="C")
    return done.returncode, done.stdout


def forwarding() -> bool:
    """Return whether the host forwards packets: without that, no published port is reachable."""
    try:
        return FORWARD.read_text().strip() == "1"
    except OSError:
        return False


def our_table(family: str, table: str, path: Path) -> str:
    """Return the problem of our table; empty if it is the confirmed one."""
    code, listing = run("nft", "--stateless", "list", "table", family, table)
    if code != 0:
        return "missing"
    try:
        file, kernel = json.loads(path.with_suffix(".confirmed").read_text())
        text = path.read_text()
    except (OSError, ValueError, TypeError, RecursionError):
        return "unconfirmed"
    digests = [hashlib.sha256(one.encode()).hexdigest() for one in (text, listing)]
    return "" if digests == [file, kernel] else "different"


def enabled(unit: str) -> bool:
    """Return whether a unit starts with the host."""
    return run("systemctl", "is-enabled", unit)[1].strip() == "enabled"


def makes_rules() -> bool:
    """Return whether the engine makes its own rules."""
    try:
        return json.loads(DAEMON.read_text()).get("iptables", True) is not False
    except (OSError, ValueError, AttributeError, RecursionError):
        return True


def engine_rules(ports: list[int]) -> dict[str, Any]:
    """Return the published ports without rules of the engine, and whether other rules are missing.

    Reads iptables and nft: the host decides which of them holds the engine's rules.
    """
    programs = any(shutil.which(name, path=path()) for name in ("iptables", "nft"))
    if not (ports and programs and makes_rules()):
        return {"missing": [], "blocked": False}
    nat = run("iptables", "-t", "nat", "-S")[1] + run("nft", "--stateless", "list", "ruleset")[1]
    rules = [line for line in nat.splitlines() if re.search(r"dnat", line, re.IGNORECASE)]
    there = {int(port) for line in rules for port in re.findall(r"dport (\d+)", line)}
    chain = run("iptables", "-S", "FORWARD")[1]
    dropped = "-P FORWARD DROP" in chain and "-j DOCKER" not in chain
    # Without this rule, answers to containers do not arrive.
    unmasked = not re.search(r"masquerade", nat, re.IGNORECASE)
    return {"missing": sorted(set(ports) - there), "blocked": dropped or unmasked}


def set_aside(folder: str) -> list[str]:
    """Return the damaged files that a service has set aside."""
    return sorted(str(one) for one in Path(folder).glob("damaged-*")) if folder else []


def used_percent(path: str) -> int:
    """Return how full the file system of a path is, as `df` counts."""
    found = os.statvfs(host_tools.existing(path))
    used = found.f_blocks - found.f_bfree
    return -(-100 * used // max(1, used + found.f_bavail))


def disks(paths: list[str]) -> list[dict[str, Any]]:
    """Return how full each path is; paths of one file system count once."""
    seen: dict[int, dict[str, Any]] = {}
    for path in paths:
        device = host_tools.existing(path).stat().st_dev
        seen.setdefault(device, {"path": path, "percent": used_percent(path)})
    return list(seen.values())
