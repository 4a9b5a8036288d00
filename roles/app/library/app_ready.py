#!/usr/bin/python
"""Wait until a container of the service is the expected one, and ready: the gate before traffic.

It requests the container's readiness until it is ready C(answers) times in a row, and returns what
the last answer said of each check. It fails at once for another image, release or colour, and for a
container that ends by itself, with its last message.
"""

from __future__ import annotations

import json
import time
from typing import Any

from ansible.module_utils.engine_client import docker, last_words
from ansible.module_utils.host_module import answer
from ansible.module_utils.host_tools import RefusedError
from ansible.module_utils.http_probe import ask, failed_checks

#: The engine restarts a container that ended; after two restarts it counts as unstable. Restarts
#: from before the wait (database down, machine rebooted) are ignored.
RESTARTS = 2


def check_container(options: dict[str, Any], before: int | None) -> int:
    """Refuse another image, and a container that does not stay up; return its restart count.

    `before` is that count at the start of the wait.
    """
    name = options["container"]
    shown = docker("container", "inspect", name, timeout=60)
    if shown.returncode != 0:
        raise RefusedError(f"there is no container {name}")
    found = json.loads(shown.stdout)[0]
    if found["Image"] != options["image"]:
        raise RefusedError(
            f"{name} runs image {found['Image']}, the release needs {options['image']}"
        )
    state, restarts = found["State"], int(found["RestartCount"])
    since = 0 if before is None else restarts - before
    down = not state["Running"] and not state["Restarting"]
    if down or since >= RESTARTS or (state["Restarting"] and restarts >= RESTARTS):
        words = " ".join(last_words(name, plain=False).split())[-300:]
        raise RefusedError(f"{name} does not stay up: {words}")
    return restarts if before is None else min(before, restarts)


def why_not(status: int, said: dict[str, Any]) -> str:
    """Return the reasons why the service is not ready."""
    if not status:
        return "it does not answer"
    if status == 200:
        return "something else answers there: it names no release"
    return failed_checks(said) or f"it answers {status}"


def wait(options: dict[str, Any]) -> dict[str, Any]:
    """Return the checks of the last answer, after enough successes in a row."""
    deadline = time.monotonic() + options["seconds"]
    good = 0
    before = None
    while True:
        before = check_container(options, before)
        found = ask(options["url"] + "/health/ready")
        status, said = found.status, found.readiness()
        named = (said.get("release"), said.get("colour"))
        if named[0] is not None and named != (options["release"], options["colour"]):
            raise RefusedError(
                f"{options['container']} answers as release {named[0]}, colour {named[1]}, where "
                f"release {options['release']}, colour {options['colour']} should: its image is "
                "not that of the release"
            )
        # An answer that names no release is not the service's.
        good = good + 1 if status == 200 and named[0] is not None else 0
        if good >= options["answers"]:
            return dict(said.get("checks", {}))
        if time.monotonic() > deadline:
            raise RefusedError(
                f"{options['container']} is not ready after {options['seconds']} s: "
                f"{why_not(status, said)}"
            )
        time.sleep(0.2 if status == 200 else 0.5)


def run(module: Any) -> dict[str, Any]:
    """Wait, unless this is a rehearsal."""
    return {"checks": {} if module.check_mode else wait(module.params)}


OPTIONS = {
    # The url is where the container answers, without a path.
    **{name: {"required": True} for name in ("container", "image", "url", "release", "colour")},
    "answers": {"type": "int", "default": 3},
    "seconds": {"type": "int", "default": 90},
}

if __name__ == "__main__":
    answer(run, OPTIONS)
