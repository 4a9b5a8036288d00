"""Collect the facts of a host; one that does not answer is a finding and does not end the run."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns C(facts), or C(problem) and the error message."""

    _VALID_ARGS = frozenset(("paths", "ports", "root", "connect_seconds"))
    _supports_check_mode = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the module, and compare the host's clock with ours."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        self._hurry(int(arguments.pop("connect_seconds", 5)))
        before = time.time()
        try:
            result = self._execute_module(
                module_name="preflight_facts", module_args=arguments, task_vars=task_vars
            )
        except AnsibleConnectionFailure as error:
            return self._problem("connection", str(error))
        except AnsibleError as error:
            return self._problem("start", str(error))
        after = time.time()
        if result.get("unreachable"):
            return self._problem("connection", str(result.get("msg", "")))
        facts = result.get("facts")
        if result.get("failed") or facts is None:
            said = " ".join(
                str(result.get(key) or "") for key in ("msg", "module_stderr", "module_stdout")
            )
            return self._problem("start", said)
        if "now" in facts:
            # The host read its clock between our two readings: a smaller offset proves nothing.
            offset = facts["now"] - (before + after) / 2
            facts["clock_off"] = round(max(0.0, abs(offset) - (after - before) / 2), 1)
            facts["clock_ahead"] = offset > 0
        return {"changed": False, "problem": "", "facts": facts}

    def _hurry(self, seconds: int) -> None:
        """Shorten the wait for a host that is down: it delays all others."""
        for name, value in (("timeout", seconds), ("reconnection_retries", 0)):
            if name in self._connection.option_definitions:
                self._connection.set_option(name, value)

    @staticmethod
    def _problem(kind: str, said: str) -> dict[str, Any]:
        """Return what kept the facts away."""
        return {"changed": False, "problem": kind, "said": " ".join(said.split()), "facts": {}}
