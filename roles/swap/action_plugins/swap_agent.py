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
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def this_run() -> str:
    """Name this run of ansible-playbook, so that another one can tell whether it still lives.

    Tasks run in forks of that process. A process id comes again, with another start; a machine
    that was rebooted has another boot id.
    """
    pid = os.getppid()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    return f"{socket.gethostname()}.{boot}.{pid}.{started(pid)}"


def is_dead(run: str) -> bool:
    """Tell whether a run is known to be over: begun on this machine, and its process is gone."""
    mine, other = this_run().rsplit(".", 3), run.rsplit(".", 3)
    if len(other) != len(mine) or other[0] != mine[0]:
        return False
    return other[1] != mine[1] or not other[2].isdigit() or started(int(other[2])) != other[3]


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
        if code == HELD and is_dead(str(answer["holder"]["run"])):
            options["instead-of"] = answer["holder"]["run"]
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
