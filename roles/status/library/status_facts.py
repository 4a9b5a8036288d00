#!/usr/bin/python
"""Collect all facts that status needs from a host, in one call.

It only reads. It never fails because a service is down, because it must report that. The answer
holds no secret, no hash of a secret and no environment of a container.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible.module_utils import (
    status_asks,
    status_engine,
    status_rules,
    status_shared,
)
from ansible.module_utils.host_module import answer


def look(given: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of this host."""
    facts: dict[str, Any] = {
        "engine": {"error": ""},
        "containers": [],
        "images": [],
        "differences": [],
        "logins": {},
        "database": {},
    }
    if given["agent"]:
        facts["edge"] = status_engine.edge(given["agent"])
    tests = None
    try:
        facts["engine"] |= status_engine.about()
        facts["containers"], raw = status_engine.containers(time.time())
        # These take longest, so start them before the other queries.
        tests = status_engine.Logins(facts["containers"], raw, given["logins"])
        facts["images"] = status_engine.images()
        facts["differences"] = status_engine.differences(raw, given["settings"])
        if given["database"]:
            facts["database"] = status_engine.database(
                given["database"]["container"], given["database"]["name"], given["keys"]
            )
    except status_engine.EngineError as error:
        facts["engine"]["error"] = status_engine.short(str(error))
    pids = {one["name"]: one.pop("pid") for one in facts["containers"]}
    colours = status_engine.colours(facts)
    facts["shared_address"] = status_shared.look(given["shared"])
    held = facts["shared_address"].get("held")
    asks = [
        ask
        for ask in given["asks"]
        if ask.get("colour", "") in {"", *colours} and (held or not ask.get("held"))
    ]
    facts["answers"] = status_asks.answers(asks, pids)
    facts["logins"] = tests.results() if tests else {}
    ports = sorted({port for one in facts["containers"] for port in one.pop("ports")})
    facts["forwarding"] = status_rules.forwarding()
    facts["engine_rules"] = status_rules.engine_rules(ports)
    firewall = given["firewall"]
    facts["firewall"] = {"table": "", "enabled": True}
    if firewall:
        facts["firewall"] = {
            "table": status_rules.our_table(
                firewall["family"], firewall["table"], Path(firewall["path"])
            ),
            "enabled": status_rules.enabled(firewall["unit"]),
        }
    facts["set_aside"] = status_rules.set_aside(given["aside"])
    root = facts["engine"].get("root")
    facts["disks"] = status_rules.disks([*([root] if root else []), *given["paths"]])
    return facts


OPTIONS = {
    # Network checks, as the filter status_asks makes them. One with a colour is sent only if that
    # colour is active or the standby: the agent records that; elsewhere the containers show it.
    "asks": {"type": "list", "elements": "dict", "default": []},
    # Places whose file systems must not be full, besides the engine's own.
    "paths": {"type": "list", "elements": "path", "default": []},
    # Those that must be the same in both colours.
    "settings": {"type": "list", "elements": "str", "default": []},
    # SHA-256 of each API key that the database should know.
    "keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
    # Family, table, path and unit of our rules; container and name of the database; address, unit
    # and agent of the shared address, on a host that has one.
    **{name: {"type": "dict", "default": {}} for name in ("firewall", "database", "shared")},
    # The swap agent, where it is; the folder where a service sets damaged files aside.
    **{name: {"type": "str", "default": ""} for name in ("agent", "aside")},
    # The program that tests the logins of a container.
    "logins": {"type": "str", "required": True},
}

if __name__ == "__main__":
    answer(lambda module: {"facts": look(module.params)}, OPTIONS)
