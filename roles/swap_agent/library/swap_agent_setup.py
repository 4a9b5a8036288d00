#!/usr/bin/python
"""Write the swap agent's files, run its commands, and keep its daemon running.

It applies C(trees), C(files), C(commands) and C(unit) in this order, in one call. Each step
compares first and changes only differences. It restarts a unit whose file differs from the one that
systemd has loaded, whichever run wrote that file. So the next run completes a killed one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.host_module import answer
from ansible.module_utils.host_tools import (
    RefusedError,
    flush_directory,
    replace,
    rights_differ,
)
from ansible.module_utils.service_files import run as write_tree

_TREE = {
    "directory": {"type": "path", "required": True},
    **{name: {"required": True} for name in ("owner", "mode", "directory_mode")},
    "files": {"type": "dict", "default": {}},
    "copies": {"type": "dict", "default": {}},
}
_FILE = {
    "path": {"type": "path", "required": True},
    **{name: {"required": True} for name in ("content", "mode")},
}
#: States of a unit that runs, or that systemd starts again by itself.
RUNNING = ("active", "activating", "reloading")
Result = dict[str, Any]


def tree(given: dict[str, Any], *, check_mode: bool) -> Result:
    """Make a directory contain exactly these files."""
    copies = dict(given["copies"])
    if check_mode:
        # On an empty host, the files to copy do not exist yet.
        copies = {name: path for name, path in copies.items() if Path(path).is_file()}
    done: Result = write_tree({**given, "copies": copies}, check=check_mode)
    late = set(given["copies"]) - set(copies)
    names = sorted({*done["changed_files"], *late})
    folder = given["directory"]
    diff = {**done.get("diff", {}), "before_header": folder, "after_header": folder}
    return {"changed": done["changed"] or bool(late), "diff": diff, "files": [
        f"{folder}/{name}" for name in names
    ]}  # fmt: skip


def one_file(given: dict[str, Any], *, check_mode: bool) -> Result:
    """Write one file of root, in a directory that also has other files."""
    path, mode = Path(given["path"]), int(given["mode"], 8)
    wanted = given["content"].encode()
    before = path.read_bytes() if path.is_file() else b""
    ours = os.geteuid(), os.getegid()
    changed = not path.is_file() or before != wanted or rights_differ(path, ours, mode)
    if changed and not check_mode:
        replace(path, wanted, mode)
        flush_directory(path.parent)
    diff = {"before": before.decode(errors="replace"), "after": given["content"]}
    diff |= {"before_header": str(path), "after_header": str(path)}
    return {"changed": changed, "diff": diff, "files": [str(path)] if changed else []}


def call(module: Any, words: list[str]) -> Result:
    """Give the agent its command; return its answer."""
    code, said, errors = module.run_command(words)
    if code != 0:
        why = errors.strip().removeprefix("airlift-swap: ")
        raise RefusedError(why or f"{' '.join(words)} ended with code {code}")
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("changed"), bool):
        raise RefusedError(f"unexpected answer of the swap agent: {said.strip()}")
    return found


def systemd(module: Any, *words: str) -> str:
    """Give systemd a command; return what it prints."""
    code, said, errors = module.run_command(["systemctl", *words])
    if code != 0:
        raise RefusedError(f"systemctl {' '.join(words)}: {(errors or said).strip()}")
    return str(said)


def state_of(module: Any, unit: str) -> dict[str, str]:
    """Return what systemd knows of a unit."""
    names = "LoadState,NeedDaemonReload,UnitFileState,ActiveState"
    lines = systemd(module, "show", unit, f"--property={names}").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def keep_running(module: Any, unit: str) -> list[str]:
    """Enable and start a unit, as its file now says; return what was due."""
    found = state_of(module, unit)
    fresh = found["LoadState"] != "loaded" or found["NeedDaemonReload"] == "yes"
    steps = ["daemon-reload"] if fresh else []
    # A unit that systemd has not loaded yet has no state.
    if fresh or found["UnitFileState"] != "enabled":
        steps.append("enable")
    if fresh or found["ActiveState"] not in RUNNING:
        steps.append("restart")
    if not steps or module.check_mode:
        return steps
    for step in steps:
        systemd(module, step, *([] if step == "daemon-reload" else [unit]))
    state = state_of(module, unit)["ActiveState"]
    if state not in RUNNING:
        raise RefusedError(f"{unit} does not run, it is {state}; see: journalctl -u {unit}")
    return steps


def run(module: Any) -> Result:
    """Do the work and return the result."""
    params, check_mode = module.params, module.check_mode
    parts = [tree(one, check_mode=check_mode) for one in params["trees"]]
    parts += [one_file(one, check_mode=check_mode) for one in params["files"]]
    result: Result = {
        "changed": any(part["changed"] for part in parts),
        "changed_files": [name for part in parts for name in part["files"]],
        "diff": [part["diff"] for part in parts if part["changed"]],
        "agent": [],
        "unit": [],
    }
    for words in params["commands"] if not check_mode else ():
        said = call(module, [str(word) for word in words])
        result["agent"].append(said)
        result["changed"] |= said["changed"]
    if params["unit"]:
        result["unit"] = keep_running(module, params["unit"])
        result["changed"] |= bool(result["unit"])
    return result


OPTIONS = {
    # Directories that hold exactly their files; each as for the module service_files.
    "trees": {"type": "list", "elements": "dict", "options": _TREE, "default": []},
    # Single files of root.
    "files": {"type": "list", "elements": "dict", "options": _FILE, "default": []},
    # The agent with each of its commands; answers are JSON. Not called in check mode.
    "commands": {"type": "list", "elements": "list", "default": []},
    # Has to be enabled and to run as its file says.
    "unit": {"type": "str", "default": ""},
}

if __name__ == "__main__":
    answer(run, OPTIONS)
