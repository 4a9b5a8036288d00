"""Filter that returns why no host of a site may be drained or brought back now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# The release directory: the roles' shared code is importable from it, whatever the controller has.
RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.swap.filter_plugins.swap_plan import problem_of_edge  # noqa: E402

#: Operations that have to be finished first.
VERBS = ("install", "upgrade", "rollback", "retire")


def swap_drain_problems(edge: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return what has to be done first; `edge` is what its agent shows.

    `here` is this directory's C(version), C(serial), C(releases), C(command) and C(again), the
    playbook with its options.
    """
    command = here["command"]
    if problem := problem_of_edge({"edge": edge, "command": command}):
        return [problem]
    if (edge["release"], edge["serial"]) != (here["version"], here["serial"]):
        return [
            f"the site runs release {edge['release']} (serial {edge['serial']}); this is release "
            f"{here['version']} (serial {here['serial']}). Run it there: "
            f"cd {here['releases']}/{edge['release']} && {command}{here['again']}"
        ]
    left = [one for one in edge.get("unfinished", []) if one["step"] in VERBS]
    # A run that is in progress holds the lock, and the lock names it.
    if left and not edge.get("lease"):
        last = max(left, key=lambda one: int(one["seq"]))
        return [
            f"{last['step']} to {last['data'].get('release')} was interrupted: finish it first "
            f"with {command}{last['step']}.yml, then run the same command again"
        ]
    return []


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"swap_drain_problems": swap_drain_problems}
