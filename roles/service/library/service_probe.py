#!/usr/bin/python
"""Ask a service from its host until it answers; see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_probe
short_description: Wait until a service answers as it should, and say why if it does not
description:
  - Asks O(url) again and again, without a proxy and without following redirects.
  - Does not fail - what the service said last is for whoever judges, together with its log.
options:
  url:
    description: What to ask.
    type: str
    required: true
  status:
    description: Good answers.
    type: list
    elements: int
    default: [200]
  ca:
    description: Certificate authority that the answer is checked against.
    type: path
    default: ""
  seconds:
    description: How long to ask.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Ask it
  service_probe:
    url: https://192.0.2.1:9090/-/ready
    ca: /etc/airlift/tls/ca.pem
  register: service_probe_result
"""

RETURN = r"""
problem:
  description: Why it does not count as running; empty when it answered well.
  returned: always
  type: str
"""

import http.client  # noqa: E402
import ssl  # noqa: E402
import time  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

TIMEOUT = 5.0
PAUSE = 0.5


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: another address says nothing of this service."""

    def redirect_request(self, *_: Any) -> None:
        """Let the redirect be the answer."""


def ask(url: str, ca: str) -> int | str:
    """Return the status of the answer, or why there is none."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), Stay()]
    try:
        if url.startswith("https:"):
            context = ssl.create_default_context(cafile=ca or None)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(url, timeout=TIMEOUT) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        return answer.code
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(getattr(error, "reason", "") or error)


def wait(url: str, good: list[int], ca: str, seconds: float) -> str:
    """Return what is wrong after so many seconds, or nothing."""
    deadline = time.monotonic() + seconds
    while True:
        said = ask(url, ca)
        if said in good:
            return ""
        if time.monotonic() >= deadline:
            answered = f"answers {said}" if isinstance(said, int) else f"does not answer: {said}"
            return f"it {answered}, after {seconds:.0f} s, at {url}"
        time.sleep(PAUSE)


def main() -> None:
    """Wait, and tell."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "status": {"type": "list", "elements": "int", "default": [200]},
            "ca": {"type": "path", "default": ""},
            "seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    problem = ""
    if not module.check_mode:
        problem = wait(options["url"], options["status"], options["ca"], options["seconds"])
    module.exit_json(changed=False, problem=problem)


if __name__ == "__main__":
    main()
