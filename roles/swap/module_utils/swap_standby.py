"""Check whether a standby colour could serve at once.

Readiness alone is not enough, because open connections outlive a changed password: new logins are
tried from inside the container, with the credentials that it holds.
"""

from __future__ import annotations

import calendar
import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.engine_client import docker
from ansible.module_utils.host_tools import RefusedError
from ansible.module_utils.http_probe import ask, failed_checks


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
    shown = docker("container", "inspect", name, timeout=options["seconds"])
    if shown.returncode != 0:
        raise RefusedError(f"there is no container {name}")
    found = json.loads(shown.stdout)[0]
    state = found["State"]
    if not state["Running"] or state["Restarting"] or state["Paused"]:
        raise RefusedError(f"{name} is {state['Status']}")
    if found["Image"] not in options["image"]:
        raise RefusedError(f"{name} runs another image than that of release {options['release']}")
    if newest(Path(options["secrets"])) > moment(state["StartedAt"]):
        raise RefusedError(f"{name} was started before its secrets changed")


def check_answer(options: dict[str, Any]) -> None:
    """Reject a colour that is not ready, or is another release."""
    name = options["container"]
    answer = ask(options["url"] + "/health/ready", seconds=options["seconds"])
    if not answer.status:
        raise RefusedError(f"{name} does not answer: {answer.error}")
    said = answer.readiness()
    if not said:
        raise RefusedError(f"{name} does not answer with its readiness")
    if said.get("release") != options["release"]:
        raise RefusedError(f"{name} answers as release {said.get('release')}")
    if answer.status != 200:
        why = failed_checks(said) or f"it answers {answer.status}"
        raise RefusedError(f"{name} is not ready: {why}")


def check_logins(options: dict[str, Any]) -> None:
    """Reject credentials that a new connection could not use."""
    name = options["container"]
    tried = docker(
        *("exec", name, "python", "-c", options["logins"]), timeout=2 * options["seconds"] + 10
    )
    try:
        refused = {str(who): str(why or "") for who, why in json.loads(tried.stdout).items()}
    except (ValueError, AttributeError, RecursionError):
        said = " ".join(tried.stderr.split())[-200:]
        raise RefusedError(f"the logins of {name} could not be tested: {said}") from None
    for service, why in refused.items():
        if why:
            raise RefusedError(f"{name} cannot log in to {service}: {' '.join(why.split())[:200]}")


def problem_of(options: dict[str, Any]) -> str:
    """Return why a colour could not serve at once; empty when it could.

    `options`: `container`, `image` (the possible ids of its release's image, one per image store),
    `url`, `release`, `secrets` (its directory on the host), `logins` (a program in Python that
    tries them inside the container) and `seconds` for one answer.
    """
    try:
        check_container(options)
        check_answer(options)
        check_logins(options)
    except RefusedError as error:
        return str(error)
    return ""
