"""Run a module on a host that may be gone, with a time limit for its answer."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase


class TooLateError(Exception):
    """The host did not answer in time."""


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TooLateError in this process after so many seconds.

    A frozen host keeps an SSH connection that is already open waiting for a minute, whatever
    ConnectTimeout is.
    """

    def ring(*_: object) -> None:
        raise TooLateError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns C(answered) and the module's C(result), or C(said), the reason for no answer."""

    _VALID_ARGS = frozenset(("module", "args", "seconds"))

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run the module once, and wait no longer than the given seconds."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        seconds = int(arguments.get("seconds", 10))
        for name, value in (("timeout", seconds), ("reconnection_retries", 0)):
            if name in self._connection.option_definitions:
                self._connection.set_option(name, value)
        try:
            with within(seconds):
                result = self._execute_module(
                    module_name=arguments["module"],
                    module_args=dict(arguments.get("args") or {}),
                    task_vars=task_vars,
                )
        except TooLateError:
            return self._silent(f"no answer within {seconds} s")
        except (AnsibleConnectionFailure, AnsibleError) as error:
            return self._silent(str(error))
        if result.get("unreachable"):
            return self._silent(str(result.get("msg", "")))
        if result.get("failed"):
            return {"failed": True, "changed": False, "msg": result.get("msg", "it failed")}
        return {"changed": False, "answered": True, "said": "", "result": result}

    @staticmethod
    def _silent(said: str) -> dict[str, Any]:
        return {"changed": False, "answered": False, "said": " ".join(said.split()), "result": {}}
