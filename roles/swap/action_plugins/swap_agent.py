"""Give the swap agent on the edge a command, in the name of this very run."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

AGENT = "/usr/local/sbin/airlift-swap"
#: The agent's exit code when another run holds the lease.
HELD = 3


def started(pid: int) -> str:
    """Return when a process of this machine was started, in ticks since boot; empty if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # One that ended and that nobody has asked after yet is gone all the same.
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""


def first_of(path: str) -> str:
    """Return the first characters of an id that the system keeps in a file."""
    try:
        return Path(path).read_text().strip()[:8] or "none"
    except OSError:
        return "none"


def this_run() -> str:
    """Name this run of ansible-playbook, so that another one can tell whether it still lives.

    Tasks run in forks of that process. A process id comes again, with another start; a machine
    that was rebooted has another boot id; two machines may have one name, but not one id.
    """
    pid = os.getppid()
    machine, boot = first_of("/etc/machine-id"), first_of("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}.{machine}.{boot}.{pid}.{started(pid)}"


def is_dead(run: str) -> bool:
    """Tell whether a run is known to be over: begun on this machine, and its process is gone."""
    mine, other = this_run().rsplit(".", 4), run.rsplit(".", 4)
    if len(other) != len(mine) or other[:2] != mine[:2]:
        return False
    boot, pid, start = other[2:]
    if boot != mine[2]:
        # Without an id of its own the name alone does not make it this machine.
        return mine[1] != "none"
    return not pid.isdigit() or started(int(pid)) != start


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns the agent's answer; fails with its words."""

    _VALID_ARGS = frozenset(("command", "options"))
    _supports_check_mode = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Call it; take the lease over from a run of this machine that died."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        command = str(self._task.args["command"])
        if self._task.check_mode and command != "show":
            return {"skipped": True, "changed": False}
        options = dict(self._task.args.get("options") or {})
        if command != "show":
            options["run"] = this_run()
        code, answer, words = self._call(command, options)
        holder = str(answer.get("holder", {}).get("run", ""))
        if code == HELD and is_dead(holder):
            options["instead-of"] = holder
            self._display.display(f"taking over from run {options['instead-of']}, which is dead")
            code, answer, words = self._call(command, options)
        if code != 0:
            return {"failed": True, "changed": False, "msg": words.removeprefix("airlift-swap: ")}
        if command == "show" and answer.get("lease"):
            answer["at_work"] = not is_dead(str(answer["lease"]["run"]))
        return {"changed": False, **answer}

    def _call(self, command: str, options: dict[str, Any]) -> tuple[int, dict[str, Any], str]:
        words = [AGENT, command]
        for name, value in options.items():
            words += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
        done = self._execute_module(
            module_name="ansible.legacy.command",
            module_args={"argv": words},
            task_vars=self._vars,
        )
        said = str(done.get("stderr") or done.get("msg") or "").strip()
        try:
            answer = json.loads(done.get("stdout") or "{}")
        except ValueError:
            return int(done.get("rc", 1)) or 1, {}, f"the swap agent said: {done.get('stdout')}"
        return int(done.get("rc", 1)), dict(answer), said
