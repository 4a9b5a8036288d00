#!/usr/bin/python
"""Wait until a container of the service is the expected one, and ready; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_ready
short_description: Gate before traffic - the right image, release and colour, repeatedly ready
description:
  - Requests a container's readiness until it is ready O(answers) times in a row.
  - Fails at once for another image, release or colour, and for a container that ends by itself,
    with its last message.
options:
  container:
    description: Name of the container.
    type: str
    required: true
  image:
    description: Id of the image that it must run.
    type: str
    required: true
  url:
    description: Where it answers, without a path.
    type: str
    required: true
  release:
    description: The release that must answer.
    type: str
    required: true
  colour:
    description: The colour that must answer.
    type: str
    required: true
  answers:
    description: How many ready answers in a row are needed.
    type: int
    default: 3
  seconds:
    description: How long to wait for them.
    type: int
    default: 90
"""

EXAMPLES = r"""
- name: Ready
  app_ready:
    container: airlift-app-green
    image: "{{ site_images.app }}"
    url: http://192.0.2.1:8002
    release: 1.1.0
    colour: green
"""

RETURN = r"""
checks:
  description: What the last answer said of each check.
  returned: success
  type: dict
"""

import json  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.container_logs import last_error  # noqa: E402
from ansible.module_utils.http_probe import ask, failed_checks  # noqa: E402

#: The engine restarts a container that ended; after two restarts it counts as unstable. Restarts
#: from before the wait (database down, machine rebooted) are ignored.
RESTARTS = 2


class NotReadyError(Exception):
    """The reason why the container must not serve, in one sentence."""


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the engine's client."""
    try:
        return subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReadyError(f"the container engine does not answer: {error}") from error


def last_words(container: str) -> str:
    """Return the reason in the last line of a container's log; lines are JSON objects."""
    said = docker("logs", "--tail", "20", container)
    return last_error(said.stdout + said.stderr, plain=False) or "it logged nothing"


def check_container(options: dict[str, Any], before: int | None) -> int:
    """Refuse another image, and a container that does not stay up; return its restart count.

    `before` is that count at the start of the wait.
    """
    name = options["container"]
    shown = docker("container", "inspect", name)
    if shown.returncode != 0:
        raise NotReadyError(f"there is no container {name}")
    found = json.loads(shown.stdout)[0]
    if found["Image"] != options["image"]:
        raise NotReadyError(
            f"{name} runs image {found['Image']}, the release needs {options['image']}"
        )
    state, restarts = found["State"], int(found["RestartCount"])
    since = 0 if before is None else restarts - before
    down = not state["Running"] and not state["Restarting"]
    if down or since >= RESTARTS or (state["Restarting"] and restarts >= RESTARTS):
        words = " ".join(last_words(name).split())[-300:]
        raise NotReadyError(f"{name} does not stay up: {words}")
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
        answer = ask(options["url"] + "/health/ready")
        status, said = answer.status, answer.readiness()
        found = (said.get("release"), said.get("colour"))
        if found[0] is not None and found != (options["release"], options["colour"]):
            raise NotReadyError(
                f"{options['container']} answers as release {found[0]}, colour {found[1]}, where "
                f"release {options['release']}, colour {options['colour']} should: its image is "
                "not that of the release"
            )
        # An answer without a release does not come from the service.
        good = good + 1 if status == 200 and found[0] is not None else 0
        if good >= options["answers"]:
            return dict(said.get("checks", {}))
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"{options['container']} is not ready after {options['seconds']} s: "
                f"{why_not(status, said)}"
            )
        time.sleep(0.2 if status == 200 else 0.5)


def main() -> None:
    """Run the module; fail with the reason."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "colour": {"type": "str", "required": True},
            "answers": {"type": "int", "default": 3},
            "seconds": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, checks={})
    try:
        checks = wait(module.params)
    except NotReadyError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, checks=checks)


if __name__ == "__main__":
    main()
