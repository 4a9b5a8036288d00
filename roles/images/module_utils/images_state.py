"""What an engine has of a release's images; for C(images_engine) and C(preflight_facts)."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.image_identity import image_ids, image_store

Component = dict[str, Any]
#: Where an engine keeps its data unless it is told otherwise.
DATA = "/var/lib/docker"
#: The engine does not tell where a containerd of its own keeps images; this is its default.
CONTAINERD_DATA = "/var/lib/containerd"
USUAL = re.compile(r"no such (image|object)|^warning", re.IGNORECASE)


class EngineError(Exception):
    """Something the engine refused, in words for the operator."""


class NoEngineError(EngineError):
    """The host has no engine."""


def docker(*arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run the engine's client."""
    try:
        return subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        message = "there is no container engine on this host"
        raise NoEngineError(message) from None
    except subprocess.TimeoutExpired:
        message = f"docker {arguments[0]} did not end within {timeout} s"
        raise EngineError(message) from None


def about_engine(timeout: int = 300) -> dict[str, Any]:
    """Return what the engine says of itself."""
    answer = docker("info", "--format", "{{json .}}", timeout=timeout)
    if answer.returncode != 0:
        raise EngineError(answer.stderr.strip() or "the engine does not answer")
    info: dict[str, Any] = json.loads(answer.stdout)
    # Asked of an engine that is down, the client ends well too, with empty answers.
    if not info.get("ServerVersion"):
        said = info.get("ServerErrors") or ["the engine does not answer"]
        raise EngineError(str(said[0]))
    return info


def image_folder(info: Mapping[str, Any]) -> str:
    """Return the folder where the engine keeps images."""
    return CONTAINERD_DATA if image_store(info) == "containerd" else str(info["DockerRootDir"])


def free_bytes(folder: str) -> int:
    """Return what is free for root where a folder is, or will be."""
    above = [Path(folder), *Path(folder).parents]
    folder = str(next(path for path in above if path.is_dir()))
    there = os.statvfs(folder)
    return there.f_bfree * there.f_frsize


def tag(component: Component) -> str:
    """Return the name that a proven image carries."""
    return f"{component['repository']}:{re.sub(r'[^A-Za-z0-9_.-]', '-', component['version'])}"


def inspect(*names: str) -> dict[str, dict[str, Any]]:
    """Return the engine's view of the images that it has, by every name asked for."""
    found: dict[str, dict[str, Any]] = {}
    answer = docker("image", "inspect", *names)
    # It fails when one of many is not there, too; what else it says then is about the engine.
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
    """Say how an image differs from the manifest's, or None."""
    if image is None:
        return f"image {image_id} does not exist"
    if image["Id"] != image_id:
        return f"its id is {image['Id']}, the release needs {image_id}"
    if image["RootFS"].get("Layers") != component["diff_ids"]:
        return "its unpacked layers are not those that the release names"
    return None


def look(components: dict[str, Component], info: Mapping[str, Any], port: int) -> dict[str, Any]:
    """Tell what is missing, and what of it could be spared; without C(info) there is no engine."""
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
    """Say whether something listens on the port that the tunnel needs."""
    with socket.socket() as probe_socket:
        return probe_socket.connect_ex(("127.0.0.1", port)) == 0
