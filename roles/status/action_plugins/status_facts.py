"""Collect all facts that status needs from a host, in one call with a time limit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.swap.action_plugins.swap_ask import TooLateError, within  # noqa: E402
from roles.swap_agent.action_plugins.swap_agent import is_answer, judged  # noqa: E402


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns the module's C(facts); without an answer in time, C(late) has the limit."""

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run the module; no longer than C(seconds)."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        seconds = int(arguments.pop("seconds"))
        if "reconnection_retries" in self._connection.option_definitions:
            # A host that drops packets costs ConnectTimeout each time.
            self._connection.set_option("reconnection_retries", 0)
        try:
            with within(seconds):
                result: dict[str, Any] = self._execute_module(
                    module_name="status_facts", module_args=arguments, task_vars=task_vars
                )
        except TooLateError:
            # An open connection may pass nothing on, for example with a lower MTU or a frozen host.
            return {"changed": False, "late": seconds, "msg": f"no answer within {seconds} s"}
        edge = (result.get("facts") or {}).get("edge")
        if edge and "msg" not in edge:
            known = is_answer(edge, "unfinished")
            words = {"msg": f"unexpected answer of the swap agent: {edge}"}
            result["facts"]["edge"] = judged(edge) if known else words
        return result
