#!/usr/bin/python
"""Set up the swap agent on its host; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swap_agent_setup
short_description: Write the swap agent's files, run its commands, and keep its daemon running
description:
  - Applies O(trees), O(files), O(commands) and O(unit) in this order, in one call. Each step
    compares first and changes only differences.
  - Restarts a unit whose file differs from the one that systemd has loaded, whichever run wrote
    that file. So the next run completes a killed one.
options:
  trees:
    description: Directories that hold exactly their files; each as for the module service_files.
    type: list
    elements: dict
    default: []
  files:
    description: Single files of root, each with C(path), C(content) and C(mode).
    type: list
    elements: dict
    default: []
  commands:
    description: The agent with each of its commands; answers are JSON. Not called in check mode.
    type: list
    elements: list
    default: []
  unit:
    description: The systemd unit to enable and to run according to its file.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Wanted configuration, active
  swap_agent_setup:
    trees:
      - directory: /etc/airlift/edge/desired
        owner: "101:101"
        mode: "0400"
        directory_mode: "0500"
        files: {nginx.conf: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"}
    commands:
      - [/usr/local/sbin/airlift-swap, apply, --release, 1.0.0, --serial, "1"]
      - [/usr/local/sbin/airlift-swap, verify]
"""

RETURN = r"""
changed_files:
  description: Files that were written or removed.
  returned: always
  type: list
  elements: str
agent:
  description: The agent's answers.
  returned: always
  type: list
  elements: dict
unit:
  description: What was done with the unit.
  returned: always
  type: list
  elements: str
"""

import json  # noqa: E402
import os  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.host_tools import flush_directory, replace  # noqa: E402
from ansible.module_utils.service_files import rights_differ  # noqa: E402
from ansible.module_utils.service_files import run as write_tree  # noqa: E402

_TREE = {
    "directory": {"type": "path", "required": True},
    "owner": {"type": "str", "required": True},
    "mode": {"type": "str", "required": True},
    "directory_mode": {"type": "str", "required": True},
    "files": {"type": "dict", "default": {}},
    "copies": {"type": "dict", "default": {}},
}
_FILE = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str", "required": True},
    "mode": {"type": "str", "required": True},
}
#: Parameters of the module service_files that the agent's trees do not use.
_UNUSED: dict[str, Any] = {"modes": {}, "secrets": {}, "fingerprint_key": None, "validate": []}
#: States of a unit that runs, or that systemd restarts by itself.
RUNNING = ("active", "activating", "reloading")
Result = dict[str, Any]


class SetupError(Exception):
    """The error in one sentence, for the operator."""


class Tree(NamedTuple):
    """A directory's part of this call, in the form of the module service_files."""

    params: dict[str, Any]
    check_mode: bool


def tree(given: dict[str, Any], *, check_mode: bool) -> Result:
    """Make a directory contain exactly these files."""
    copies = dict(given["copies"])
    if check_mode:
        # On an empty host, the files to copy do not exist yet.
        copies = {name: path for name, path in copies.items() if Path(path).is_file()}
    done: Result = write_tree(Tree({**_UNUSED, **given, "copies": copies}, check_mode))
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
    changed = (
        not path.is_file()
        or before != wanted
        or rights_differ(path, os.geteuid(), os.getegid(), mode)
    )
    if changed and not check_mode:
        replace(path, wanted, mode)
        flush_directory(path.parent)
    diff = {"before": before.decode(errors="replace"), "after": given["content"]}
    diff |= {"before_header": str(path), "after_header": str(path)}
    return {"changed": changed, "diff": diff, "files": [str(path)] if changed else []}


def call(module: AnsibleModule, words: list[str]) -> Result:
    """Run a command of the agent; return its answer."""
    code, said, errors = module.run_command(words)
    if code != 0:
        why = errors.strip().removeprefix("airlift-swap: ")
        raise SetupError(why or f"{' '.join(words)} ended with code {code}")
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("changed"), bool):
        raise SetupError(f"unexpected answer of the swap agent: {said.strip()}")
    return answer


def systemd(module: AnsibleModule, *words: str) -> str:
    """Run a systemctl command; return its output."""
    code, said, errors = module.run_command(["systemctl", *words])
    if code != 0:
        raise SetupError(f"systemctl {' '.join(words)}: {(errors or said).strip()}")
    return str(said)


def state_of(module: AnsibleModule, unit: str) -> dict[str, str]:
    """Return systemd's state of a unit."""
    names = "LoadState,NeedDaemonReload,UnitFileState,ActiveState"
    lines = systemd(module, "show", unit, f"--property={names}").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def keep_running(module: AnsibleModule, unit: str) -> list[str]:
    """Enable and start a unit according to its file; return the changes."""
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
        raise SetupError(f"{unit} does not run, it is {state}; see: journalctl -u {unit}")
    return steps


def run(module: AnsibleModule) -> Result:
    """Apply everything and return the result."""
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
        answer = call(module, [str(word) for word in words])
        result["agent"].append(answer)
        result["changed"] |= answer["changed"]
    if params["unit"]:
        result["unit"] = keep_running(module, params["unit"])
        result["changed"] |= bool(result["unit"])
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "trees": {"type": "list", "elements": "dict", "options": _TREE, "default": []},
            "files": {"type": "list", "elements": "dict", "options": _FILE, "default": []},
            "commands": {"type": "list", "elements": "list", "default": []},
            "unit": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    # Modes of parent directories must not depend on the umask of sudo.
    os.umask(0o022)
    try:
        module.exit_json(**run(module))
    except (OSError, ValueError, SetupError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
