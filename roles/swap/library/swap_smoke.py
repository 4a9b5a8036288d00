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

import http.client  # noqa: E402
import json  # noqa: E402
import ssl  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

IDENTITY = {"method": "GET", "path": "/health", "status": 200}


class SmokeError(Exception):
    """An unexpected answer, described in a sentence."""


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for this address, and a redirect is no right answer."""

    def redirect_request(self, *_: Any) -> None:
        """Let the redirect be the answer."""


def opener(options: dict[str, Any]) -> urllib.request.OpenerDirector:
    """Return an opener for this very address: no proxy, no redirect, no other authority."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), Stay()]
    if options["url"].startswith("https:"):
        try:
            context = ssl.create_default_context(cafile=options["ca_file"] or None)
        except OSError as error:
            raise SmokeError(
                f"{options['ca_file']} is not a certificate authority: {error}"
            ) from error
        if not options["validate"]:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def read(answer: Any) -> bytes:
    """Return the body; of an incomplete one, the part that came."""
    try:
        return bytes(answer.read())
    except http.client.IncompleteRead as error:
        return error.partial
    except (OSError, http.client.HTTPException):
        return b""


def ask(options: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """Send one request; return the answer's JSON, or None when it is something else."""
    what = f"{wanted['method']} {wanted['path']}"
    request = urllib.request.Request(  # noqa: S310 - the site's own address
        options["url"] + wanted["path"], method=wanted["method"]
    )
    if "body" in wanted:
        request.data = json.dumps(wanted["body"]).encode()
        request.add_header("Content-Type", "application/json")
    if options["key"]:
        request.add_header("X-API-Key", options["key"])
    try:
        with opener(options).open(request, timeout=options["timeout"]) as answer:
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        status, body = answer.code, read(answer)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise SmokeError(f"{what} got no answer from {options['url']}: {reason}") from error
    if status != int(wanted["status"]):
        said = " ".join(body.decode(errors="replace").split())
        # Before the text is cut: half a key would not be recognised any more.
        said = (said.replace(options["key"], "***") if options["key"] else said)[:200]
        raise SmokeError(f"{what} answered {status} instead of {wanted['status']}: {said}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def identify(options: dict[str, Any]) -> None:
    """Reject any other release or colour than the wanted one."""
    said = ask(options, IDENTITY)
    found = (said.get("release"), said.get("colour")) if isinstance(said, dict) else (None, None)
    if found != (options["release"], options["colour"]):
        raise SmokeError(
            f"release {found[0]}, colour {found[1]} answers at {options['url']} where release "
            f"{options['release']}, colour {options['colour']} should"
        )


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
        },
        supports_check_mode=True,
    )
    asked = 0
    try:
        for _ in range(module.params["rounds"]):
            identify(module.params)
            for wanted in module.params["requests"]:
                ask(module.params, wanted)
            asked += 1 + len(module.params["requests"])
    except SmokeError as error:
        module.fail_json(msg=str(error), asked=asked)
    module.exit_json(changed=False, asked=asked)


if __name__ == "__main__":
    main()
