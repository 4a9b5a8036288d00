"""Measure an operator's commands: on this tree's site beside an older tree's, and by hosts.

Both trees run the same commands, each with its own bundle on a fresh lab, without load. REV names
the older tree (`scripts/releases.py` has the default). `scripts/remote_steps.py` defines "remote
step" and "work".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.lab import ROOT, Lab, stream
from scripts.releases import older_tree

COMMANDS = ("install", "reinstall", "status", "upgrade", "rollback")
#: The measured values of each command, and the end of its key.
_REPORTED = {"seconds": "seconds", "steps": "remote_steps", "alone": "remote_steps_alone"}

Times = dict[str, dict[str, Any]]


def times(
    tree: Path, cache: Path, hosts: str, *commands: str, listen: Callable[[str], None]
) -> Times:
    """Install a tree's site in the lab and run commands on it; keep the lab."""
    argv = [sys.executable, "-P", str(ROOT / "scripts/site_times.py"), str(cache), hosts, *commands]
    done = stream(argv, what=f"the site of {tree.name}", listen=listen, cwd=tree)
    found: Times = json.loads(done.output.splitlines()[-1])
    return found


def commands(listen: Callable[[str], None], say: Callable[[str], None]) -> dict[str, Any]:
    """Measure the commands on both trees; return the flat results."""
    older = older_tree()
    found = {}
    try:
        for name, tree in (("before", older), ("now", ROOT)):
            say(f"the site of {name}: {tree.name}")
            cache = ROOT / ".cache" / "commands" / name
            found[name] = times(tree, cache, "five", *COMMANDS, listen=listen)
    finally:
        Lab(listen=listen).down()
    return compared(found["before"], found["now"]) | {"before_revision": older.name}


def compared(before: Times, now: Times) -> dict[str, Any]:
    """Return the flat results of two trees' commands."""
    flat: dict[str, Any] = {}
    for command in COMMANDS:
        for kind, end in _REPORTED.items():
            # `rollback_seconds` ends when the previous release serves.
            key = f"{'rollback_whole' if command == 'rollback' else command}_{end}"
            flat |= {key: now[command][kind], f"before_{key}": before[command][kind]}

    def seconds(of: Times, command: str) -> float:
        return float(of[command]["seconds"])

    return flat | {
        "reinstall_changed": now["reinstall"]["changed"],
        "install_time_ratio": seconds(now, "install") / seconds(before, "install"),
        "reinstall_time_ratio": seconds(now, "reinstall") / seconds(before, "install"),
        "reinstall_own_time_ratio": seconds(now, "reinstall") / seconds(now, "install"),
        "status_time_ratio": seconds(now, "status") / seconds(before, "status"),
        "upgrade_whole_time_ratio": seconds(now, "upgrade") / seconds(before, "upgrade"),
        "upgrade_overhead_ratio": seconds(now, "upgrade") / float(now["upgrade"]["work"]),
        "rollback_time_ratio": seconds(now, "rollback") / seconds(before, "rollback"),
    }


def scale(listen: Callable[[str], None], say: Callable[[str], None]) -> dict[str, Any]:
    """Measure an install with nothing to do on a site of one host, and on one of eight."""
    found: dict[str, float] = {}
    try:
        for hosts in ("one", "eight"):
            say(f"a site of {hosts}")
            done = times(
                ROOT, ROOT / ".cache/commands/now", hosts, "install", "reinstall", listen=listen
            )
            found[hosts] = float(done["reinstall"]["seconds"])
    finally:
        Lab(listen=listen).down()
    return {
        "hosts_one_reinstall_seconds": found["one"],
        "hosts_eight_reinstall_seconds": found["eight"],
        "hosts_scale_ratio": found["eight"] / found["one"],
    }
