"""Print all findings as one table, write them for machines, and fail if one of them is an error."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.preflight.logic import table  # noqa: E402
from roles.site.logic import folder  # noqa: E402

FORMAT = 1


def report_of(site: str, rows: list[dict[str, Any]], hosts: list[str]) -> dict[str, Any]:
    """Return the JSON report of the findings; keys are only added to it."""
    errors = [row for row in rows if row["level"] == "error"]
    return {
        "format": FORMAT,
        "site": site,
        "time": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "passed": not errors,
        "hosts": hosts,
        "errors": errors,
        "warnings": [row for row in rows if row["level"] != "error"],
    }


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs once on the controller."""

    _VALID_ARGS = frozenset(("rows", "path", "site", "hosts"))
    _requires_connection = False
    _supports_check_mode = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write and print the findings; fail if one is an error."""
        super().run(tmp, task_vars)
        arguments = self._task.args
        rows = [dict(row) for row in arguments["rows"]]
        hosts = list(arguments["hosts"])
        report = report_of(str(arguments["site"]), rows, hosts)
        path = Path(str(arguments["path"]))
        folder.write_report(path, report, "preflight_report", self._display.warning)
        errors, warnings = report["errors"], report["warnings"]
        if warnings:
            self._display.display("\nWarnings:\n" + table.render(warnings))
        if not errors:
            return {"changed": False, "msg": f"{len(hosts)} host(s) are ready", "rows": rows}
        many = f"{len(errors)} finding{'s' if len(errors) > 1 else ''}"
        self._display.display(f"\nNot ready, {many}:\n" + table.render(errors) + "\n")
        return {
            "failed": True,
            "changed": False,
            "msg": f"Preflight failed: {many} in the table above; no host was changed. "
            f"JSON report: {arguments['path']}",
        }
