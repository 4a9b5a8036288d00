"""The identity of an image on a host, for modules on hosts and filters on the jump host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The fields of a component's manifest entry that a host needs.
FIELDS = ("version", "repository", "manifest_digest", "config_digest", "diff_ids", "probe")
CONTAINERD = "io.containerd.snapshotter.v1"


def image_store(info: Mapping[str, Any]) -> str:
    """Return the image store in `docker info`: containerd or overlay2."""
    status = dict(info.get("DriverStatus") or [])
    return "containerd" if status.get("driver-type") == CONTAINERD else str(info["Driver"])


def image_id(component: Mapping[str, Any], store: str) -> str:
    """Return the id under which an image store has the image of a manifest's component.

    Containers are started by it and by nothing else.
    """
    return str(component["manifest_digest" if store == "containerd" else "config_digest"])


def image_ids(components: Mapping[str, Mapping[str, Any]], store: str) -> dict[str, str]:
    """Return component: image id."""
    return {name: image_id(component, store) for name, component in components.items()}


def identifying(components: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the component fields that a host needs to identify and test images."""
    return {name: {field: one[field] for field in FIELDS} for name, one in components.items()}
