"""Filter that shows keys as a table, and the fix where inventory and database differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.key.logic import keys  # noqa: E402


def key_report(listed: Sequence[Mapping[str, Any]], stored: str, command: str) -> str:
    """Return the table and the next command; `stored` is empty if no site is installed yet."""
    if not stored:
        rows = [{**row, "state": "not installed yet"} for row in keys.compare(listed, [])]
        return f"{keys.table(rows)}\n\nNext: {command}install.yml"
    # The service logs to the same stream; the list is one line of the output.
    lines = [line for line in stored.splitlines() if line.startswith("[")]
    rows = keys.compare(listed, json.loads(lines[-1]))
    strange = [row for row in rows if row["state"] not in keys.DECIDED]
    said = ["Inventory and database agree."]
    if strange:
        said = [f"{len(strange)} of {len(rows)} keys differ between inventory and database."]
        said += [f"Next: {command}keys.yml -e key_sync=true"]
    return "\n".join([keys.table(rows), "", *said])


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return name: function."""
        return {"key_report": key_report}
