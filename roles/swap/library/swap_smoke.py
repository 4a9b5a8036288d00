#!/usr/bin/python
"""Test a release as a client would, before or after it serves; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swap_smoke
short_description: Send requests to the service and check its answers
description:
  - Sends each request on a connection of its own, O(rounds) times, so that every replica behind
    a proxy gets some.
  - Every answer must have the wanted status. C(GET /health) is requested as well, and must name the
    wanted release and colour.
options:
  url: {description: "Where the service answers, without a path.", type: str, required: true}
  ca_file: {type: path, default: "",
    description: Certificate authority that the answers are checked against; empty for plain HTTP.}
  validate: {description: Check the certificate at all., type: bool, default: true}
  key: {description: API key., type: str, default: ""}
  requests: {type: list, elements: dict, default: [],
    description: "The requests, each with method, path, status and optionally body."}
  release: {description: The release that must answer., type: str, required: true}
  colour: {description: The colour that must answer., type: str, required: true}
  rounds: {description: How often every request is sent., type: int, default: 1}
  timeout: {description: Seconds for one answer., type: int, default: 10}
  seconds: {type: int, default: 0,
    description: "For how long a wrong answer is asked again, all requests from the first."}
"""

RETURN = r"""
asked: {description: How many requests were answered as expected., returned: success, type: int}
"""

import time  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils import http_probe  # noqa: E402
from ansible.module_utils.host_module import answer  # noqa: E402
from ansible.module_utils.host_tools import RefusedError  # noqa: E402

IDENTITY = {"method": "GET", "path": "/health", "status": 200}


def ask(options: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """Send one request; return the answer's JSON, or None when it is something else."""
    what = f"{wanted['method']} {wanted['path']}"
    found = http_probe.ask(
        options["url"] + wanted["path"],
        method=wanted["method"],
        send=wanted.get("body"),
        key=options["key"],
        ca=options["ca_file"],
        verify=options.get("validate", True),
        seconds=options["timeout"],
    )
    if not found.status:
        raise RefusedError(f"{what} got no answer from {options['url']}: {found.error}")
    if found.status != int(wanted["status"]):
        said = " ".join(found.body.decode(errors="replace").split())
        # Before the text is cut: half a key would not be recognised any more.
        said = (said.replace(options["key"], "***") if options["key"] else said)[:200]
        raise RefusedError(f"{what} answered {found.status} instead of {wanted['status']}: {said}")
    return found.content()


def identify(options: dict[str, Any]) -> None:
    """Reject any other release or colour than the wanted one."""
    said = ask(options, IDENTITY)
    found = (said.get("release"), said.get("colour")) if isinstance(said, dict) else (None, None)
    if found != (options["release"], options["colour"]):
        raise RefusedError(
            f"release {found[0]}, colour {found[1]} answers at {options['url']} where release "
            f"{options['release']}, colour {options['colour']} should"
        )


def every_round(options: dict[str, Any]) -> tuple[int, str]:
    """Return how many requests were answered as expected, and why the next one was not."""
    asked = 0
    try:
        for _ in range(options["rounds"]):
            identify(options)
            for wanted in options["requests"]:
                ask(options, wanted)
            asked += 1 + len(options["requests"])
    except RefusedError as error:
        return asked, str(error)
    return asked, ""


def run(module: Any) -> dict[str, Any]:
    """Send every request, until all are answered as expected or the time is over."""
    deadline = time.monotonic() + module.params["seconds"]
    while True:
        asked, why = every_round(module.params)
        if not why:
            return {"asked": asked}
        if time.monotonic() >= deadline:
            module.fail_json(msg=why, asked=asked)
        time.sleep(1)


OPTIONS = {
    **{name: {"required": True} for name in ("url", "release", "colour")},
    "ca_file": {"type": "path", "default": ""},
    "validate": {"type": "bool", "default": True},
    "key": {"type": "str", "default": "", "no_log": True},
    "requests": {"type": "list", "elements": "dict", "default": []},
    "rounds": {"type": "int", "default": 1},
    "timeout": {"type": "int", "default": 10},
    "seconds": {"type": "int", "default": 0},
}

if __name__ == "__main__":
    answer(run, OPTIONS)
