"""Filters of the service: its containers per colour, and whether replicas take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def app_colours_of(
    common: Mapping[str, Any],
    part: str,
    colours: Sequence[str],
    release: str,
    ports: Mapping[str, int],
) -> dict[str, dict[str, Any]]:
    """Return colour: container of one part of the service, app or worker.

    C(port) of the common part is the port in the container. On the host it gets the port of
    C(ports) whose name has the part and the colour. C(ready) is the address of the container's
    readiness check.
    """
    rest = {key: value for key, value in common.items() if key not in ("port", "ready")}

    def probe(colour: str) -> dict[str, Any]:
        if "ready" not in common:
            return {}
        return {"url": f"http://{common['ready']}:{ports[f'{part}_{colour}']}/health/ready"}

    return {
        colour: {
            **rest,
            "probe": probe(colour),
            "name": f"{part}-{colour}",
            "ports": [{"host": f"{part}_{colour}", "container": int(common["port"])}],
            "env": {**common["env"], "COLOUR": colour},
            "labels": {"airlift.release": release, "airlift.colour": colour},
        }
        for colour in colours
    }


def app_absent(parts: Sequence[str], colour: str, stop_timeout: int) -> list[dict[str, Any]]:
    """Return the containers of one colour as entries that must not exist."""
    return [
        {"name": f"{part}-{colour}", "state": "absent", "stop_timeout": int(stop_timeout)}
        for part in parts
    ]


def app_standby_colour(edge: Mapping[str, Any], colours: Sequence[str]) -> str:
    """Return the standby colour, also one that is to be created again; empty if there is none.

    `edge` is the recorded state of the edge; {} before the first installation.
    """
    if not edge.get("standby") and not edge.get("warm_until"):
        return ""
    return str(edge["standby"] or next(one for one in colours if one != edge["active"]))


def app_in_turn(hosts: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether replicas of an active site must be replaced: then hosts take turns."""
    found = list(hosts)
    serves = any("content" in host.get("edge_state_content", {}) for host in found)
    due = (
        one["name"]
        for host in found
        for one in host.get("container_compared", {}).get("containers", ())
        if one["due"]
    )
    return serves and any(name.startswith(("app-", "worker-")) for name in due)


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            "app_absent": app_absent,
            "app_colours_of": app_colours_of,
            "app_in_turn": app_in_turn,
            "app_standby_colour": app_standby_colour,
        }
