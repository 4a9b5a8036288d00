"""The state of a release's images on a host; for C(images_engine) and C(preflight_facts)."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.engine_client import EngineError, docker
from ansible.module_utils.host_tools import existing
from ansible.module_utils.image_identity import image_ids, image_store

Component = dict[str, Any]
#: The engine's default data directory.
DATA = "/var/lib/docker"
#: Default directory of a separate containerd's images, which the engine does not report.
CONTAINERD_DATA = "/var/lib/containerd"
USUAL = re.compile(r"no such (image|object)|^warning", re.IGNORECASE)


def image_folder(info: Mapping[str, Any]) -> str:
    """Return the directory in which the engine keeps images."""
    return CONTAINERD_DATA if image_store(info) == "containerd" else str(info["DockerRootDir"])


def free_bytes(folder: str) -> int:
    """Return the free bytes for root at a path that may not exist yet."""
    there = os.statvfs(existing(folder))
    return there.f_bfree * there.f_frsize


def tag(component: Component) -> str:
    """Return the name of a tested image."""
    return f"{component['repository']}:{re.sub(r'[^A-Za-z0-9_.-]', '-', component['version'])}"


def inspect(*names: str) -> dict[str, dict[str, Any]]:
    """Return the engine's records of the images that exist, by each requested name."""
    found: dict[str, dict[str, Any]] = {}
    answer = docker("image", "inspect", *names)
    # It also fails if one of several is missing. Any other message is an error of the engine.
    for line in answer.stderr.splitlines() if answer.returncode != 0 else []:
        if line.strip() and not USUAL.search(line):
            raise EngineError(line.strip())
    for image in json.loads(answer.stdout or "[]"):
        found[image["Id"]] = image
        for name in image.get("RepoTags") or []:
            found[name] = image
    return found


def listed(*options: str) -> list[str]:
    """Return the ids of the images that the engine lists."""
    answer = docker("image", "ls", "--quiet", "--no-trunc", *options)
    if answer.returncode != 0:
        raise EngineError(answer.stderr.strip() or "the engine does not list its images")
    return sorted(set(answer.stdout.split()))


def difference(component: Component, image: dict[str, Any] | None, image_id: str) -> str | None:
    """Return how an image differs from the manifest's, or None."""
    if image is None:
        return f"image {image_id} does not exist"
    if image["Id"] != image_id:
        return f"its id is {image['Id']}, the release needs {image_id}"
    if image["RootFS"].get("Layers") != component["diff_ids"]:
        return "its unpacked layers are not those that the release names"
    return None


def look(components: dict[str, Component], info: Mapping[str, Any], port: int) -> dict[str, Any]:
    """Return missing images and reusable layers; without C(info) there is no engine."""
    store = image_store(info) if info else "none"
    ids = image_ids(components, store)
    names = [*ids.values(), *(tag(component) for component in components.values())]
    there = inspect(*names) if info and names else {}
    missing = [
        name
        for name, component in components.items()
        if difference(component, there.get(ids[name]), ids[name])
        or there.get(tag(component), {}).get("Id") != ids[name]
    ]
    every = listed("--all") if info and missing else []
    seen = inspect(*every) if every else {}
    return {
        "store": store,
        "free": free_bytes(image_folder(info) if info else DATA),
        "ids": ids,
        "missing": missing,
        "absent": [name for name in missing if ids[name] not in there],
        "layers": [
            one["RootFS"].get("Layers") or [] for name, one in seen.items() if name in every
        ],
        "port_taken": bool(port and missing) and port_taken(port),
    }


def port_taken(port: int) -> bool:
    """Return whether a process listens on the port that the tunnel needs."""
    with socket.socket() as probe_socket:
        return probe_socket.connect_ex(("127.0.0.1", port)) == 0
