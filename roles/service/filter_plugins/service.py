"""Filters that turn a service's data into what the container module takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def service_port(published: Mapping[str, Any], ports: Mapping[str, int], address: str) -> str:
    """Return one published port as address:host:container."""
    host = published["host"]
    if isinstance(host, str) and not host.isdigit():
        if host not in ports:
            message = f"port {host!r} is not in site_ports; known are {', '.join(sorted(ports))}"
            raise AnsibleFilterError(message)
        host = ports[host]
    return f"{address}:{int(host)}:{int(published['container'])}"


def service_mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    """Return one bind mount; read-only unless it says otherwise."""
    return {
        "type": "bind",
        "source": mount["source"],
        "target": mount["target"],
        "read_only": bool(mount.get("read_only", True)),
    }


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {"service_port": service_port, "service_mount": service_mount}
