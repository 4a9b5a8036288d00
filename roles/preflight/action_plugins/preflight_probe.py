"""Collect the facts of a host; an unreachable host is a finding and does not end the run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.site.module_utils.image_identity import identifying  # noqa: E402


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns C(facts) and C(problem): connection, start, sudo or ''; C(said) is the reason.

    One call as root collects everything. If it fails, a second one as the login user finds out
    whether only root was refused.
    """

    _VALID_ARGS = frozenset(
        ("paths", "ports", "components", "authority", "shared", "connect_seconds")
    )
    _supports_check_mode = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Query as root; if that fails, as the login user."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        self._hurry(int(arguments.pop("connect_seconds", 5)))
        arguments["components"] = identifying(arguments.get("components") or {})
        problem, said, facts = self._ask(arguments, task_vars)
        # Do not let all other hosts wait a second time for a host that cannot be reached.
        if problem == "start" or "privilege escalation" in said:
            refused = said
            self._connection.set_become_plugin(None)
            problem, said, facts = self._ask(arguments, task_vars)
            if not problem:
                problem, said = "sudo", refused
        elif not problem and "engine" not in facts:
            problem, said = "sudo", "the task ran as another user"
        return {"changed": False, "problem": problem, "said": said, "facts": facts}

    def _ask(
        self, arguments: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> tuple[str, str, dict[str, Any]]:
        """Run the module and compare the host's clock with ours; on failure return the reason."""
        before = time.time()
        try:
            result = self._execute_module(
                module_name="preflight_facts", module_args=arguments, task_vars=task_vars
            )
        except AnsibleError as error:
            lost = isinstance(error, AnsibleConnectionFailure)
            return "connection" if lost else "start", _line(str(error)), {}
        after = time.time()
        if result.get("unreachable"):
            return "connection", _line(str(result.get("msg", ""))), {}
        if result.get("failed") or "facts" not in result:
            parts = (result.get(key) for key in ("msg", "module_stderr", "module_stdout"))
            return "start", _line(" ".join(str(part or "") for part in parts)), {}
        facts: dict[str, Any] = result["facts"]
        # The host read its clock between our two readings. An offset within that time proves
        # nothing.
        began, ended = result["clock"]
        offset = (began + ended - before - after) / 2
        way = max(0.0, (after - before) - (ended - began)) / 2
        facts["clock_off"] = round(max(0.0, abs(offset) - way), 1)
        facts["clock_ahead"] = offset > 0
        return "", "", facts

    def _hurry(self, seconds: int) -> None:
        """Limit the wait for a host that is down, because all others wait for it."""
        for name, value in (("timeout", seconds), ("reconnection_retries", 0)):
            if name in self._connection.option_definitions:
                self._connection.set_option(name, value)


def _line(text: str) -> str:
    return " ".join(text.split())
