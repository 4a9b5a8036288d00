"""Filter that returns whether any of several containers must change, after a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def container_due(wanted: Iterable[Mapping[str, Any]], compared: Mapping[str, Any]) -> bool:
    """Return whether a container differs or is not healthy; tasks/compare.yml compared them."""
    due = {one["name"] for one in compared["containers"] if one["due"]}
    return any(one["name"] in due for one in wanted)


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., bool]]:
        """Return name: function."""
        return {"container_due": container_due}
