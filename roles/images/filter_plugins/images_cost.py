"""Filter that returns the cost of a release for each host before the delivery."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# The release directory, from which `bundle` is imported on the controller.
RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from bundle.core.text import duration, size, table  # noqa: E402


def images_cost(delivered: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table, from the results of images_deliver in check mode."""
    rows = [
        (
            host,
            str(len(one["delivered"])),
            size(one["bytes"]),
            size(one["disk"]),
            size(one["free"]),
            duration(one["seconds"]),
        )
        for host, one in delivered.items()
        if one["delivered"]
    ]
    if not rows:
        return ["every host has every image already"]
    lines = table(rows, ["HOST", "IMAGES", "TO CARRY", "ON DISK", "FREE", "ABOUT"]).splitlines()
    return lines + [
        f"warning: {host} may need about {duration(one['seconds'])}, and images_timeout allows "
        f"{duration(one['limit'])}: set images_timeout to more than {one['seconds']:.0f}"
        for host, one in delivered.items()
        if one["delivered"] and one["seconds"] > one.get("limit", one["seconds"])
    ]


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"images_cost": images_cost}
