"""Make the report of the findings, for people and for machines."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.site.logic import folder  # noqa: E402
from roles.status.logic import report  # noqa: E402


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs once, on the controller."""

    _VALID_ARGS = frozenset(("findings", "path"))
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Return text and report, and write the report."""
        super().run(tmp, task_vars)
        made = report.make(self._task.args["findings"])
        moment = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made["report"]["time"] = moment
        path = Path(str(self._task.args["path"]))
        # In check mode as well: the file reports what was checked and changes nothing else.
        folder.write_report(path, made["report"], "status_report", self._display.warning)
        return {"changed": False, **made}
