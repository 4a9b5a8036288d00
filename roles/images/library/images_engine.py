#!/usr/bin/python
"""Query, pull, verify and tag the images of a release on a host.

The host's part of the action plugin images_deliver. Exit codes are not trusted. An image is correct
if its id in the engine and the digests of its unpacked layers are those of the manifest. It works
if its program answered in a container. The tag is set last, so a tagged image was tested.

C(inspect) reports missing images, and those of them that are not there at all (C(absent)). C(pull)
pulls all images concurrently, then does C(settle), which tests, tags and flushes loaded images to
disk. C(prune) removes the images of the components whose id is not kept, unless a container still
uses them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ansible.module_utils import host_tools
from ansible.module_utils.engine_client import (
    EngineError,
    NoEngineError,
    about_engine,
    docker,
)
from ansible.module_utils.host_module import answer
from ansible.module_utils.image_identity import image_id, image_store
from ansible.module_utils.images_state import (
    Component,
    difference,
    image_folder,
    inspect,
    listed,
    look,
    tag,
)

Result = TypeVar("Result")
# User nobody: a probe prints a version and needs no files of its own.
PROBE_USER = "65534:65534"


def incoming_tag(component: Component) -> str:
    """Return the temporary name of a streamed image on the containerd store."""
    return f"{component['repository']}:incoming"


def present(component: Component, store: str) -> bool:
    """Return whether the image exists, in any state."""
    ident = image_id(component, store)
    return ident in inspect(ident)


def probe(name: str, component: Component, ident: str) -> None:
    """Start the image's program once, to verify that it was unpacked and runs on this host."""
    command = component["probe"]
    answer = docker(
        *("run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges:true", "--user", PROBE_USER, "--pull", "never"),
        *("--tmpfs", "/tmp", "--log-driver", "none"),  # noqa: S108
        *("--entrypoint", command[0], ident, *command[1:]),
    )
    if answer.returncode != 0:
        said = (answer.stderr or answer.stdout).strip()
        raise EngineError(f"{name}: '{' '.join(command)}' in its container failed: {said}")


def settle(name: str, component: Component, store: str) -> str:
    """Test an image, then tag it."""
    ident: str = image_id(component, store)
    wrong = difference(component, inspect(ident).get(ident), ident)
    if wrong:
        raise EngineError(f"{name}: {wrong}")
    probe(name, component, ident)
    answer = docker("image", "tag", ident, tag(component))
    if answer.returncode != 0:
        raise EngineError(f"{name}: {answer.stderr.strip()}")
    docker("image", "rm", incoming_tag(component))
    return ident


def pull(name: str, component: Component, store: str, registry: str, timeout: int) -> None:
    """Pull one image by digest."""
    if present(component, store):
        return
    reference = f"{registry}/{component['repository']}@{component['manifest_digest']}"
    answer = docker("pull", "--quiet", reference, timeout=timeout)
    if answer.returncode != 0:
        raise EngineError(f"{name}: {answer.stderr.strip() or 'the pull failed'}")


def names_of(image: dict[str, Any], repositories: set[str]) -> list[str]:
    """Return an image's names in these repositories, with or without a registry's address."""
    names = [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]
    return [
        name
        for name in names
        if re.sub(r"^127\.0\.0\.1:\d+/", "", re.split(r"@|:[^:/]*$", name)[0]) in repositories
    ]


def prune(components: dict[str, Component], kept: set[str], *, check: bool) -> dict[str, Any]:
    """Remove images that no kept release needs and no container uses."""
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
            # One command can remove several names, so check whether the image is gone.
            docker("image", "rm", name)
        if check or ident not in inspect(ident):
            removed.append(names[0])
    return {"changed": bool(removed), "removed": removed}


def run(module: Any) -> dict[str, Any]:
    """Do what the state says."""
    params = module.params
    components: dict[str, Component] = params["components"]
    try:
        info = about_engine()
    except NoEngineError:
        if params["state"] != "inspect" or not params["optional"]:
            raise
        info = {}
    if params["state"] == "inspect":
        return {"changed": False, **look(components, info, params["port"])}

    if params["state"] == "prune":
        return prune(components, set(params["kept"]), check=module.check_mode)

    store = image_store(info)
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
    flush(image_folder(info))
    done = {"store": store, "images": images, "absent": absent, "pulled_seconds": pulled}
    return {"changed": bool(components), **done}


def for_each(names: Iterable[str], work: Callable[[str], Result]) -> dict[str, Result]:
    """Process all images at once; after all have ended, raise the first error."""
    wanted = list(names)
    with ThreadPoolExecutor(max_workers=max(1, len(wanted))) as pool:
        futures = {name: pool.submit(work, name) for name in wanted}
    errors = [str(future.exception()) for future in futures.values() if future.exception()]
    if errors:
        raise EngineError("; ".join(errors))
    return {name: future.result() for name, future in futures.items()}


def flush(folder: str) -> None:
    """Put what was unpacked on the disk: power loss after a load has left empty files in layers."""
    done = host_tools.run("sync", "--file-system", folder, seconds=None)
    if done.returncode != 0:
        raise EngineError(f"the images could not be flushed to the disk: {done.stderr.strip()}")


OPTIONS = {
    "state": {"choices": ["inspect", "pull", "settle", "prune"], "required": True},
    # Component, and its entry in the manifest.
    "components": {"type": "dict", "required": True},
    # The address of the registry, as the host sees it.
    "registry": {"type": "str", "default": ""},
    "kept": {"type": "list", "elements": "str", "default": []},
    # The port that the tunnel will need.
    "port": {"type": "int", "default": 0},
    # To inspect: a host without an engine has no image. To settle: a missing image is omitted.
    "optional": {"type": "bool", "default": False},
    # Seconds for one pull.
    "timeout": {"type": "int", "default": 1800},
}

if __name__ == "__main__":
    answer(run, OPTIONS)
