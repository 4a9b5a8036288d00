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
  url:
    description: Where the service answers, without a path.
    type: str
    required: true
  ca_file:
    description: Certificate authority that the answers are checked against; empty for plain HTTP.
    type: path
    default: ""
  validate:
    description: Check the certificate at all.
    type: bool
    default: true
  key:
    description: API key.
    type: str
    default: ""
  requests:
    description: The requests, each with method, path, status and optionally body.
    type: list
    elements: dict
    default: []
  release:
    description: The release that must answer.
    type: str
    required: true
  colour:
    description: The colour that must answer.
    type: str
    required: true
  rounds:
    description: How often every request is sent.
    type: int
    default: 1
  timeout:
    description: Seconds for one answer.
    type: int
    default: 10
  seconds:
    description: Seconds for retries after a wrong answer; each retry sends all requests.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Smoke test
  swap_smoke:
    url: https://192.0.2.1:8443
    ca_file: /etc/airlift/tls/ca.pem
    release: 1.1.0
    colour: green
    requests:
      - {method: GET, path: /health/ready, status: 200}
"""

RETURN = r"""
asked:
  description: How many requests were answered as expected.
  returned: success
  type: int
"""

import time  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils import http_probe  # noqa: E402
from ansible.module_utils.basic import AnsibleModule  # noqa: E402

IDENTITY = {"method": "GET", "path": "/health", "status": 200}


class SmokeError(Exception):
    """An unexpected answer, described in a sentence."""


def ask(options: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """Send one request; return the answer's JSON, or None when it is something else."""
    what = f"{wanted['method']} {wanted['path']}"
    answer = http_probe.ask(
        options["url"] + wanted["path"],
        method=wanted["method"],
        send=wanted.get("body"),
        key=options["key"],
        ca=options["ca_file"],
        verify=options.get("validate", True),
        seconds=options["timeout"],
    )
    if not answer.status:
        raise SmokeError(f"{what} got no answer from {options['url']}: {answer.error}")
    if answer.status != int(wanted["status"]):
        said = " ".join(answer.body.decode(errors="replace").split())
        # Mask the key before the text is shortened: part of a key would not be recognised.
        said = (said.replace(options["key"], "***") if options["key"] else said)[:200]
        raise SmokeError(f"{what} answered {answer.status} instead of {wanted['status']}: {said}")
    return answer.content()


def identify(options: dict[str, Any]) -> None:
    """Reject any other release or colour than the wanted one."""
    said = ask(options, IDENTITY)
    found = (said.get("release"), said.get("colour")) if isinstance(said, dict) else (None, None)
    if found != (options["release"], options["colour"]):
        raise SmokeError(
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
    except SmokeError as error:
        return asked, str(error)
    return asked, ""


def main() -> None:
    """Send every request; fail at the first wrong answer."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "ca_file": {"type": "path", "default": ""},
            "validate": {"type": "bool", "default": True},
            "key": {"type": "str", "default": "", "no_log": True},
            "requests": {"type": "list", "elements": "dict", "default": []},
            "release": {"type": "str", "required": True},
            "colour": {"type": "str", "required": True},
            "rounds": {"type": "int", "default": 1},
            "timeout": {"type": "int", "default": 10},
            "seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    deadline = time.monotonic() + module.params["seconds"]
    while True:
        asked, why = every_round(module.params)
        if not why or time.monotonic() >= deadline:
            break
        time.sleep(1)
    if why:
        module.fail_json(msg=why, asked=asked)
    module.exit_json(changed=False, asked=asked)


if __name__ == "__main__":
    main()
