"""Return the current value of a variable in the inventory's files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.site.logic.fresh import Fresh  # noqa: E402


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns `value`; by default the value that this run loaded.

    The default is used if no file sets the variable, or if the inventory alone cannot evaluate it.
    """

    _VALID_ARGS = frozenset(("name", "default"))
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Read the inventory again."""
        super().run(tmp, task_vars)
        given, arguments = task_vars or {}, self._task.args
        value = arguments.get("default")
        try:
            fresh = Fresh(self._loader, given["ansible_inventory_sources"])
            value = fresh.value(given["inventory_hostname"], str(arguments["name"]), value)
        except AnsibleError as error:
            self._display.vvv(f"{arguments['name']} as this run has it: {error.message}")
        return {"changed": False, "value": value}
