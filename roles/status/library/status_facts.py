#!/usr/bin/python
"""Collect all facts that status needs from a host, in one call; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status_facts
short_description: Collect all facts that status needs from a host, in one call
description:
  - Reads only. Never fails because a service is down, because it must report that.
  - The answer holds no secret, no hash of a secret and no environment of a container.
options:
  asks:
    description:
      - The network checks - C(name), C(kind) (C(ready), C(gauge) or C(targets)), C(url), C(ca),
        C(verify), C(gauge), C(within), the container from whose network it is sent, and C(colour).
      - A check with C(held) is sent only while the host holds the shared address.
      - A check with a colour is sent only if that colour is active or the standby. The agent
        records that; on other hosts the containers show it.
    type: list
    elements: dict
    default: []
  paths: {type: list, elements: path, default: [],
    description: "Places whose file systems must not be full, besides the engine's own."}
  firewall:
    description: C(family), C(table), C(path) and C(unit) of our rules; empty when there are none.
    type: dict
    default: {}
  agent: {type: str, default: "",
    description: "The swap agent, where it is; it knows the active colour and the standby."}
  shared: {type: dict, default: {},
    description: "C(address), C(unit) and C(agent) of the shared address, on a host that has one."}
  settings: {type: list, elements: str, default: [],
    description: Settings that must be the same in both colours.}
  aside: {type: str, default: "",
    description: Folder where a service sets damaged files aside; empty when it has none.}
  database: {type: dict, default: {},
    description: "C(container) and C(name) of the database, on the host that has it."}
  keys: {type: list, elements: str, default: [],
    description: SHA-256 of each API key that the database should know.}
"""

RETURN = r"""
facts: {description: What was found., returned: always, type: dict}
"""

import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils import (  # noqa: E402
    status_asks,
    status_engine,
    status_rules,
    status_shared,
)
from ansible.module_utils.host_module import answer  # noqa: E402


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
    "asks": {"type": "list", "elements": "dict", "default": []},
    "paths": {"type": "list", "elements": "path", "default": []},
    "settings": {"type": "list", "elements": "str", "default": []},
    "keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
    **{name: {"type": "dict", "default": {}} for name in ("firewall", "database", "shared")},
    **{name: {"type": "str", "default": ""} for name in ("agent", "aside")},
    "logins": {"type": "str", "required": True},
}

if __name__ == "__main__":
    answer(lambda module: {"facts": look(module.params)}, OPTIONS)
