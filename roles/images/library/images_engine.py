#!/usr/bin/python
"""Query, pull, verify and tag the images of a release on a host; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: images_engine
short_description: Query, pull, verify and tag the images of a release
description:
  - The host's part of the action plugin C(images_deliver).
  - No exit code is believed. An image is what it should be when the engine's id for it, and the
    digests of its unpacked layers, are those of the manifest; and it works when its program
    answered in a container. The tag is given last, so an image with its tag has been proven.
options:
  state:
    description:
      - C(inspect) tells what is missing.
      - C(pull) pulls from O(registry), all at once, then settles.
      - C(settle) proves, tags and flushes to disk what was loaded.
      - C(prune) removes the images of O(components) whose id is not in O(kept). An image that a
        container still uses stays.
    type: str
    choices: [inspect, pull, settle, prune]
    required: true
  components:
    description: Component, and its entry in the manifest.
    type: dict
    required: true
  registry:
    description: Address of the registry, as the host sees it.
    type: str
    default: ""
  kept:
    description: Ids of the images that stay.
    type: list
    elements: str
    default: []
  port:
    description: Port that the tunnel will need.
    type: int
    default: 0
  optional:
    description:
      - For C(inspect), a host without an engine counts as one that has no image.
      - For C(settle), an image that is not there is told of and left out.
    type: bool
    default: false
  timeout:
    description: Seconds for one pull.
    type: int
    default: 1800
"""

EXAMPLES = r"""
- name: What is missing
  images_engine:
    state: inspect
    components: "{{ site_manifest.components }}"
"""

RETURN = r"""
missing:
  description: Components whose image is not there, or not yet proven.
  returned: when state is inspect
  type: list
  elements: str
free:
  description: Bytes that are free where the engine keeps, or will keep, its images.
  returned: when state is inspect
  type: int
absent:
  description: Those of the missing whose image is not there at all.
  returned: when state is inspect, or settle and O(optional)
  type: list
  elements: str
pulled_seconds:
  description: How long the pulls alone took, without the proofs and the flush.
  returned: when state is pull or settle
  type: float
"""

import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, TypeVar  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

Component = dict[str, Any]
Result = TypeVar("Result")
#: Where an engine keeps its data unless it is told otherwise.
DATA = "/var/lib/docker"
CONTAINERD = "io.containerd.snapshotter.v1"
#: The engine does not tell where a containerd of its own keeps images; this is its default.
CONTAINERD_DATA = "/var/lib/containerd"
USUAL = re.compile(r"no such (image|object)|^warning", re.IGNORECASE)
# User nobody: a probe prints a version and needs no file of its own.
PROBE_USER = "65534:65534"


class EngineError(Exception):
    """Something the engine refused, in words for the operator."""


def docker(*arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run the engine's client."""
    try:
        return subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        message = "there is no container engine on this host"
        raise EngineError(message) from None
    except subprocess.TimeoutExpired:
        message = f"docker {arguments[0]} did not end within {timeout} s"
        raise EngineError(message) from None


def about_engine() -> tuple[str, str]:
    """Return the engine's image store, and the folder where that keeps images."""
    answer = docker("info", "--format", "{{json .}}")
    if answer.returncode != 0:
        raise EngineError(answer.stderr.strip() or "the engine does not answer")
    info = json.loads(answer.stdout)
    # Asked of an engine that is down, the client ends well too, with empty answers.
    if not info.get("ServerVersion"):
        said = info.get("ServerErrors") or ["the engine does not answer"]
        raise EngineError(str(said[0]))
    status = dict(info.get("DriverStatus") or [])
    if status.get("driver-type") == CONTAINERD:
        return "containerd", CONTAINERD_DATA
    return str(info["Driver"]), str(info["DockerRootDir"])


def free_bytes(folder: str) -> int:
    """Return what is free for root where a folder is, or will be."""
    above = [Path(folder), *Path(folder).parents]
    folder = str(next(path for path in above if path.is_dir()))
    there = os.statvfs(folder)
    return there.f_bfree * there.f_frsize


def expected_id(component: Component, store: str) -> str:
    """Return the image's id by the one rule for each image store."""
    return str(component["manifest_digest" if store == "containerd" else "config_digest"])


def tag(component: Component) -> str:
    """Return the name that a proven image carries."""
    return f"{component['repository']}:{re.sub(r'[^A-Za-z0-9_.-]', '-', component['version'])}"


def incoming_tag(component: Component) -> str:
    """Return the name under which a streamed image arrives on the containerd store."""
    return f"{component['repository']}:incoming"


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


def present(component: Component, store: str) -> bool:
    """Say whether the image is there, whatever its state."""
    image_id = expected_id(component, store)
    return image_id in inspect(image_id)


def difference(component: Component, image: dict[str, Any] | None, image_id: str) -> str | None:
    """Say how an image differs from the manifest's, or None."""
    if image is None:
        return f"image {image_id} does not exist"
    if image["Id"] != image_id:
        return f"its id is {image['Id']}, the release needs {image_id}"
    if image["RootFS"].get("Layers") != component["diff_ids"]:
        return "its unpacked layers are not those that the release names"
    return None


def probe(name: str, component: Component, image_id: str) -> None:
    """Start the image's program once: proof that it was unpacked and runs on this host."""
    command = component["probe"]
    answer = docker(
        *("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges:true", "--user", PROBE_USER, "--pull", "never"),
        *("--tmpfs", "/tmp", "--log-driver", "none"),  # noqa: S108
        *("--entrypoint", command[0], image_id, *command[1:]),
    )
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip()
        message = f"{name}: '{' '.join(command)}' in its container failed: {said}"
        raise EngineError(message)


def settle(name: str, component: Component, store: str) -> str:
    """Prove an image, then give it its tag."""
    image_id = expected_id(component, store)
    wrong = difference(component, inspect(image_id).get(image_id), image_id)
    if wrong:
        message = f"{name}: {wrong}"
        raise EngineError(message)
    probe(name, component, image_id)
    answer = docker("image", "tag", image_id, tag(component))
    if answer.returncode != 0:
        message = f"{name}: {answer.stderr.strip()}"
        raise EngineError(message)
    docker("image", "rm", incoming_tag(component))
    return image_id


def pull(name: str, component: Component, store: str, registry: str, timeout: int) -> None:
    """Pull one image by digest."""
    if present(component, store):
        return
    reference = f"{registry}/{component['repository']}@{component['manifest_digest']}"
    answer = docker("pull", "--quiet", reference, timeout=timeout)
    if answer.returncode != 0:
        message = f"{name}: {answer.stderr.strip() or 'the pull failed'}"
        raise EngineError(message)


def look(components: dict[str, Component], store: str, port: int) -> dict[str, Any]:
    """Tell what is missing, and what of it could be spared."""
    ids = {name: expected_id(component, store) for name, component in components.items()}
    names = [*ids.values(), *(tag(component) for component in components.values())]
    there = inspect(*names) if names else {}
    missing = [
        name
        for name, component in components.items()
        if difference(component, there.get(ids[name]), ids[name])
        or there.get(tag(component), {}).get("Id") != ids[name]
    ]
    result: dict[str, Any] = {
        "store": store,
        "ids": ids,
        "missing": missing,
        "absent": [name for name in missing if ids[name] not in there],
        "layers": [],
        "port_taken": False,
    }
    if missing:
        every = listed("--all")
        seen = inspect(*every) if every else {}
        result["layers"] = [
            image["RootFS"].get("Layers") or [] for name, image in seen.items() if name in every
        ]
        result["port_taken"] = bool(port) and port_taken(port)
    return result


def names_of(image: dict[str, Any], repositories: set[str]) -> list[str]:
    """Return an image's names in these repositories; a registry's address may stand before them."""
    names = [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]
    return [
        name
        for name in names
        if re.sub(r"^127\.0\.0\.1:\d+/", "", re.split(r"@|:[^:/]*$", name)[0]) in repositories
    ]


def prune(components: dict[str, Component], kept: set[str], *, check: bool) -> dict[str, Any]:
    """Remove what no release that is kept needs, and no container uses."""
    repositories = {component["repository"] for component in components.values()}
    every = listed()
    removed = []
    for ident, image in (inspect(*every) if every else {}).items():
        names = names_of(image, repositories) if ident in every and ident not in kept else []
        if not names:
            continue
        users = docker("ps", "--all", "--quiet", "--filter", f"ancestor={ident}")
        if users.returncode != 0 or users.stdout:
            continue
        for name in names if not check else []:
            # One name may go with another, so what counts is whether the image is gone.
            docker("image", "rm", name)
        if check or ident not in inspect(ident):
            removed.append(names[0])
    return {"changed": bool(removed), "removed": removed}


def port_taken(port: int) -> bool:
    """Say whether something listens on the port that the tunnel needs."""
    with contextlib.closing(socket.socket()) as probe_socket:
        return probe_socket.connect_ex(("127.0.0.1", port)) == 0


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do what the state says."""
    params = module.params
    components: dict[str, Component] = params["components"]
    if params["state"] == "inspect" and params["optional"] and not shutil.which("docker"):
        nothing = {"store": "none", "layers": [], "ids": {}, "port_taken": False}
        names, free = list(components), free_bytes(DATA)
        return {"changed": False, "missing": names, "absent": names, "free": free, **nothing}
    store, data = about_engine()
    if params["state"] == "inspect":
        found = look(components, store, params["port"])
        return {"changed": False, "free": free_bytes(data), **found}

    if params["state"] == "prune":
        return prune(components, set(params["kept"]), check=module.check_mode)

    absent: list[str] = []
    if params["state"] == "settle" and params["optional"]:
        absent = [name for name, one in components.items() if not present(one, store)]
        components = {name: one for name, one in components.items() if name not in absent}
    pulled = 0.0
    if params["state"] == "pull":
        started = time.monotonic()
        registry, limit = params["registry"], params["timeout"]
        for_each(components, lambda name: pull(name, components[name], store, registry, limit))
        pulled = time.monotonic() - started
    images = for_each(components, lambda name: settle(name, components[name], store))
    flush(data)
    done = {"store": store, "images": images, "absent": absent, "pulled_seconds": pulled}
    return {"changed": bool(components), **done}


def for_each(names: Iterable[str], work: Callable[[str], Result]) -> dict[str, Result]:
    """Do something with all images at once; raise what went wrong with any, when all are done."""
    wanted = list(names)
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        futures = {name: pool.submit(work, name) for name in wanted}
    errors = [str(future.exception()) for future in futures.values() if future.exception()]
    if errors:
        message = "; ".join(errors)
        raise EngineError(message)
    return {name: future.result() for name, future in futures.items()}


def flush(folder: str) -> None:
    """Put what was unpacked on the disk: power loss after a load has left empty files in layers."""
    done = subprocess.run(
        ["sync", "--file-system", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        message = f"the images could not be flushed to the disk: {done.stderr.strip()}"
        raise EngineError(message)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["inspect", "pull", "settle", "prune"],
                "required": True,
            },
            "components": {"type": "dict", "required": True},
            "registry": {"type": "str", "default": ""},
            "kept": {"type": "list", "elements": "str", "default": []},
            "port": {"type": "int", "default": 0},
            "optional": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 1800},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (EngineError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
