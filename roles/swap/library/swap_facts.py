#!/usr/bin/python
"""Return the facts of a host for the plan of an upgrade or a rollback; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swap_facts
short_description: Return the facts of a host for a plan, in one call
description:
  - Reads only. Does not fail when the engine is down; the plan decides about that.
options:
  backups: {type: str, default: "",
    description: Directory of the database's backups; empty on a host without a database.}
  standby:
    description:
      - A colour to check - C(container), C(image), C(url), C(release), C(secrets), C(logins) and
        C(seconds), as C(problem_of) in the module utility C(swap_standby) describes them.
      - Empty when there is none to check.
    type: dict
    default: {}
"""

RETURN = r"""
engine: {description: What the engine says of itself., type: dict, returned: always}
error: {description: Why the engine does not answer., type: str, returned: always}
components: {description: Component and the image it runs., type: dict, returned: always}
images: {description: Image id and its names., type: dict, returned: always}
backups: {description: Names of the finished backups' records., type: list, returned: always}
leftovers: {description: Folders that a killed run may have left., type: list, returned: always}
problem: {type: str, returned: always,
  description: Why the colour could not serve at once; empty when it could.}
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils import engine_socket, swap_standby  # noqa: E402
from ansible.module_utils.host_module import answer  # noqa: E402

# The field with the image store. The complete answer is long and contains the host's networks.
ABOUT = ("ServerVersion", "Driver", "DriverStatus", "DockerRootDir")
#: Where releases before this one had their temporary folders.
TEMPORARY = Path("/tmp")  # noqa: S108
COMPONENT = "airlift.component"
#: Seconds for one answer of the engine.
PATIENCE = 5.0


def of_engine() -> dict[str, Any]:
    """Return the engine's containers and images."""
    about = engine_socket.ask("/info", PATIENCE)
    containers = engine_socket.ask("/containers/json", PATIENCE, filters={"label": [COMPONENT]})
    images = engine_socket.ask("/images/json", PATIENCE)
    return {
        "engine": {name: about.get(name) for name in ABOUT},
        "components": {str(one["Labels"][COMPONENT]): one["ImageID"] for one in containers},
        "images": {
            one["Id"]: [*(one.get("RepoTags") or []), *(one.get("RepoDigests") or [])]
            for one in images
        },
    }


def leftovers() -> list[str]:
    """Return temporary folders of runs, in the home of the login (see ansible.cfg) and in /tmp."""
    home = Path(f"~{os.environ.get('SUDO_USER', '')}").expanduser()
    found = [*home.glob(".ansible/tmp/ansible-tmp-*"), *TEMPORARY.glob(".ansible-*/ansible-tmp-*")]
    return sorted(map(str, found))


def run(module: Any) -> dict[str, Any]:
    """Return what was found."""
    given = module.params
    said: dict[str, Any] = {"engine": {}, "components": {}, "images": {}, "error": ""}
    try:
        said.update(of_engine())
    except engine_socket.EngineError as error:
        said["error"] = str(error)
    backups = Path(given["backups"]).glob("*.json") if given["backups"] else ()
    return {
        "backups": sorted(one.name for one in backups),
        "leftovers": leftovers(),
        "problem": swap_standby.problem_of(given["standby"]) if given["standby"] else "",
        **said,
    }


OPTIONS = {
    "backups": {"type": "str", "default": ""},
    "standby": {"type": "dict", "default": {}},
}

if __name__ == "__main__":
    answer(run, OPTIONS)
