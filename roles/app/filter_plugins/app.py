"""Filter that finds the reason in what a command of the service's image logged."""

from __future__ import annotations

import json
from collections.abc import Callable


def app_reason(output: str) -> str:
    """Return the reason of the last error among lines that are JSON objects, or the last line."""
    lines = [line for line in str(output).splitlines() if line.strip()]
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and str(record.get("level")) in {"error", "critical"}:
            return str(
                record.get("reason") or record.get("exception") or record.get("event") or line
            )
    return lines[-1] if lines else "it logged nothing"


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return name: function."""
        return {"app_reason": app_reason}
