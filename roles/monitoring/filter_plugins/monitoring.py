"""Filter that turns the site's inventory into Prometheus' targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def monitoring_targets(
    job: Mapping[str, Any],
    zone_hosts: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str],
    ports: Mapping[str, int],
    colours: Sequence[str],
) -> list[dict[str, Any]]:
    """Return one job's targets, one group a host and port, in a stable order.

    Targets are addresses, so that Prometheus looks up nothing; the labels carry the names.
    """
    zone = job["zone"]
    hosts = sorted(addresses) if zone == "all" else sorted(zone_hosts.get(zone, []))
    wanted: list[tuple[str, dict[str, str]]] = (
        [(f"app_{colour}", {"colour": colour}) for colour in colours]
        if job.get("colours")
        else [(str(job["port"]), {})]
    )
    return [
        {
            "targets": [f"{addresses[host]}:{ports[port]}"],
            "labels": {"host": host, "instance": f"{host}:{ports[port]}", **labels},
        }
        for port, labels in wanted
        for host in hosts
    ]


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"monitoring_targets": monitoring_targets}
