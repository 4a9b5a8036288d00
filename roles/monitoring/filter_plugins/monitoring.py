"""Filter that converts the site's inventory to Prometheus' targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def monitoring_targets(
    job: Mapping[str, Any],
    zone_hosts: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str],
    ports: Mapping[str, int],
    colours: Sequence[str],
) -> list[dict[str, Any]]:
    """Return one job's targets in a stable order, one group per host and port.

    Targets are addresses, so that Prometheus needs no name resolution; labels have the names.
    """
    zone = job["zone"]
    hosts = sorted(addresses) if zone == "all" else sorted(zone_hosts.get(zone, []))
    port_of = str(job["port"])
    wanted: list[tuple[str, dict[str, str]]] = [(port_of, {})]
    if which := job.get("colours"):
        running = colours if which == "all" else colours[:1]
        wanted = [(f"{port_of}_{colour}", {"colour": colour}) for colour in running]
    return [
        {
            "targets": [f"{addresses[host]}:{ports[port]}"],
            "labels": {"host": host, "instance": f"{host}:{ports[port]}", **labels},
        }
        for port, labels in wanted
        for host in hosts
    ]


def monitoring_target_files(jobs: Mapping[str, Mapping[str, Any]], *site: Any) -> dict[str, str]:
    """Return file name: content, one file per job; `site` are arguments of monitoring_targets."""
    return {
        f"{name}.json": json.dumps(monitoring_targets(job, *site), indent=1, sort_keys=True) + "\n"
        for name, job in jobs.items()
    }


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"monitoring_target_files": monitoring_target_files}
