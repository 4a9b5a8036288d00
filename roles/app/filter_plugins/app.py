"""Filter that finds the reason in what a command of the service's image logged."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# The release directory: the roles' shared code is importable from it, whatever the controller has.
RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from roles.site.module_utils.container_logs import last_error  # noqa: E402


def app_reason(output: str) -> str:
    """Return the reason of the last error among lines that are JSON objects, or the last line."""
    return last_error(str(output), plain=False) or "it said nothing"


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return name: function."""
        return {"app_reason": app_reason}
