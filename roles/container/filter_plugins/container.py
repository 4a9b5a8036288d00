"""Filters that say which containers are due, of what a comparison found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def container_due(wanted: Iterable[Mapping[str, Any]], compared: Mapping[str, Any]) -> bool:
    """Return whether a container differs or is not healthy; tasks/compare.yml compared them."""
    due = {one["name"] for one in compared["containers"] if one["due"]}
    return any(one["name"] in due for one in wanted)


def container_replaced(hosts: Iterable[Mapping[str, Any]], name: str) -> dict[str, list[str]]:
    """Return what differs in a container that runs and would be created again: host: why.

    `hosts` are variables of hosts whose containers tasks/compare.yml compared.
    """
    return {
        host["inventory_hostname"]: one["why"]
        for host in hosts
        for one in host.get("container_compared", {}).get("containers", ())
        if one["name"] == name and one.get("replaces")
    }


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"container_due": container_due, "container_replaced": container_replaced}
