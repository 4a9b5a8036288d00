"""Filter that returns the network checks of each host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Ask = dict[str, Any]


def _of_edge(site: Mapping[str, Any]) -> Iterator[Ask]:
    """Check the edge as clients do, and each replica as Nginx does, from Nginx's network."""
    url = f"https://{site['address']}:{site['ports']['https']}/health/ready"
    yield {"name": "edge", "kind": "ready", "url": url, "verify": site["verify"]}
    if site["shared"]:
        # The firewall lets no edge ask another one: the one that has the address asks itself.
        url = f"https://{site['shared']}:{site['ports']['https']}/health/ready"
        ask = {"name": "shared address", "kind": "ready", "url": url, "held": True}
        yield {**ask, "verify": site["verify"]}
    for host in site["app_hosts"]:
        for colour in site["colours"]:
            port = site["ports"][f"app_{colour}"]
            url = f"http://{site['addresses'][host]}:{port}/health/ready"
            yield {
                "name": f"app-{colour} on {host}",
                "kind": "ready",
                "url": url,
                "within": "airlift-edge",
                "colour": colour,
            }


def _of_app(site: Mapping[str, Any]) -> Iterator[Ask]:
    """Check the containers of each colour on the host itself."""
    for colour in site["colours"]:
        for service in ("app", "worker"):
            port = site["ports"][f"{service}_{colour}"]
            url = f"http://{site['address']}:{port}/health/ready"
            yield {"name": f"{service}-{colour}", "kind": "ready", "url": url, "colour": colour}


def status_asks(site: Mapping[str, Any]) -> list[Ask]:
    """Return the checks of one host; `site` has the role's data.

    The host selects the checks of its own colours. The service's own answer tests its connection
    and logins to the data zone; an exporter's metric tests the exporter's login; Prometheus'
    targets test all scrapes.
    """
    asks: list[Ask] = []
    zones: Sequence[str] = site["zones"]
    if "dmz" in zones:
        asks += _of_edge(site)
    if "app" in zones:
        asks += _of_app(site)
    for service, (zone, gauge) in site["exporters"].items():
        if zone in zones:
            port = site["ports"][service.replace("-", "_")]
            url = f"https://{site['address']}:{port}/metrics"
            asks.append({"name": service, "kind": "gauge", "gauge": gauge, "url": url})
    if "monitor" in zones:
        url = f"https://{site['address']}:{site['ports']['prometheus']}/api/v1/targets?state=active"
        ask = {"name": "targets", "kind": "targets", "url": url, "within": "airlift-prometheus"}
        asks.append(ask)
    return [{**ask, "ca": site["ca"]} for ask in asks]


class FilterModule:
    """The filter, under the name that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"status_asks": status_asks}
