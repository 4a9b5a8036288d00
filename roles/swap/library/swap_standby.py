#!/usr/bin/python
"""Check whether a standby colour could serve at once; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swap_standby
short_description: Check whether a standby colour could serve at once
description:
  - Checks the container now - it runs the image of its release, and no secret on the host is newer
    than its process.
  - Checks its readiness, and tries new logins from inside it with the credentials that it holds.
    Readiness alone is not enough, because open connections outlive a changed password.
  - Changes nothing, and does not fail - the caller decides what a problem means.
options:
  container:
    description: Name of the container.
    type: str
    required: true
  image:
    description: Possible ids of the release's image, one per image store.
    type: list
    elements: str
    required: true
  url:
    description: Where it answers, without a path.
    type: str
    required: true
  release:
    description: The release that must answer.
    type: str
    required: true
  secrets:
    description: Directory on the host with the container's secrets.
    type: path
    required: true
  logins:
    description: A program in Python that tries the logins inside the container, and prints them.
    type: str
    required: true
  seconds:
    description: How long one answer may take.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Whether the standby could serve
  swap_standby:
    container: airlift-app-blue
    image: [sha256:0123]
    url: http://192.0.2.1:8001
    release: 1.0.0
    secrets: /etc/airlift/secrets/app-blue
    logins: "{{ site_logins }}"
"""

RETURN = r"""
problem:
  description: Why it could not serve at once; empty when it could.
  returned: always
  type: str
"""

import calendar  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.http_probe import ask, failed_checks  # noqa: E402


class NotAbleError(Exception):
    """Why the colour cannot serve, in a sentence."""


def docker(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run the engine's client."""
    try:
        return subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAbleError(f"the container engine does not answer: {error}") from error


def moment(text: str) -> float:
    """Return a time of the engine, such as 2026-01-02T03:04:05.678901234Z, in seconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


def newest(directory: Path) -> float:
    """Return when the newest file of a directory was written."""
    return max((path.stat().st_mtime for path in directory.glob("*")), default=0.0)


def check_container(options: dict[str, Any]) -> None:
    """Reject a container that does not run, or runs something else."""
    name = options["container"]
    shown = docker("container", "inspect", name, seconds=options["seconds"])
    if shown.returncode != 0:
        raise NotAbleError(f"there is no container {name}")
    found = json.loads(shown.stdout)[0]
    state = found["State"]
    if not state["Running"] or state["Restarting"] or state["Paused"]:
        raise NotAbleError(f"{name} is {state['Status']}")
    if found["Image"] not in options["image"]:
        raise NotAbleError(f"{name} runs another image than that of release {options['release']}")
    if newest(Path(options["secrets"])) > moment(state["StartedAt"]):
        raise NotAbleError(f"{name} was started before its secrets changed")


def check_answer(options: dict[str, Any]) -> None:
    """Reject a colour that is not ready, or is another release."""
    name = options["container"]
    answer = ask(options["url"] + "/health/ready", seconds=options["seconds"])
    if not answer.status:
        raise NotAbleError(f"{name} does not answer: {answer.error}")
    said = answer.readiness()
    if not said:
        raise NotAbleError(f"{name} does not answer with its readiness")
    if said.get("release") != options["release"]:
        raise NotAbleError(f"{name} answers as release {said.get('release')}")
    if answer.status != 200:
        why = failed_checks(said) or f"it answers {answer.status}"
        raise NotAbleError(f"{name} is not ready: {why}")


def check_logins(options: dict[str, Any]) -> None:
    """Reject credentials that a new connection could not use."""
    name = options["container"]
    tried = docker(
        *("exec", name, "python", "-c", options["logins"]), seconds=2 * options["seconds"] + 10
    )
    try:
        refused = {str(who): str(why or "") for who, why in json.loads(tried.stdout).items()}
    except (ValueError, AttributeError, RecursionError):
        said = " ".join(tried.stderr.split())[-200:]
        raise NotAbleError(f"the logins of {name} could not be tested: {said}") from None
    for service, why in refused.items():
        if why:
            raise NotAbleError(f"{name} cannot log in to {service}: {' '.join(why.split())[:200]}")


def main() -> None:
    """Check the standby; return its problem."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "image": {"type": "list", "elements": "str", "required": True},
            "url": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "secrets": {"type": "path", "required": True, "no_log": False},
            "logins": {"type": "str", "required": True},
            "seconds": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    problem = ""
    try:
        check_container(module.params)
        check_answer(module.params)
        check_logins(module.params)
    except NotAbleError as error:
        problem = str(error)
    module.exit_json(changed=False, problem=problem)


if __name__ == "__main__":
    main()
