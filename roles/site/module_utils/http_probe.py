"""Send one HTTP request from a host to a service of the site.

It bypasses proxies of the host and follows no redirect: another address says nothing about this
service, and must not get a key. The swap agent does not use this module. It is one self-contained
program of the standard library, which must work when nothing else does, and its probe sends many
requests at a time without a thread for each.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Maximum bytes of an answer; a service that sends more is not the expected one.
MOST = 64 << 20


class Answer(NamedTuple):
    """A service's answer; without one, the status is 0 and `error` has the reason."""

    status: int
    body: bytes
    error: str

    def content(self) -> Any:
        """Return the JSON content of the body; None if it is something else."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def readiness(self) -> dict[str, Any]:
        """Return the service's readiness answer; empty if it has another form."""
        said = self.content()
        good = isinstance(said, dict) and isinstance(said.get("checks", {}), dict)
        return said if good else {}


def failed_checks(said: Mapping[str, Any]) -> str:
    """Return the checks of a readiness answer that are not well, in words; empty if all are."""
    checks = said.get("checks", {})
    return "; ".join(f"{name}: {value}" for name, value in checks.items() if value != "ok")


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Do not follow: the redirect is the answer."""


def ask(
    url: str,
    *,
    method: str = "GET",
    send: Any = None,
    key: str = "",
    ca: str = "",
    verify: bool = True,
    seconds: float = 5.0,
) -> Answer:
    """Send one request on a connection of its own, with `send` as JSON.

    `ca` is the authority for the certificate, if there is one.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _Stay()]
    try:
        if url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_context(ca, verify=verify)))
        request = urllib.request.Request(url, method=method)  # noqa: S310 - the site's own
        if send is not None:
            request.data = json.dumps(send).encode()
            request.add_header("Content-Type", "application/json")
        if key:
            request.add_header("X-API-Key", key)
        with urllib.request.build_opener(*handlers).open(request, timeout=seconds) as answer:
            body = bytes(answer.read(MOST))
            # Limit the read, so that a truncated answer does not raise an error of its own.
            missing: int = getattr(answer, "length", None) or 0
            if len(body) < MOST and missing:
                raise http.client.IncompleteRead(body, missing)
            return Answer(int(answer.status), body, "")
    except urllib.error.HTTPError as answer:
        return Answer(answer.code, _rest(answer), "")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", "") or error
        return Answer(0, b"", str(reason) or type(error).__name__)


def _context(ca: str, *, verify: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise ValueError(f"{ca} is not a certificate authority: {error}") from error
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _rest(answer: Any) -> bytes:
    """Return the body of an error; if it is incomplete, the received part."""
    try:
        return bytes(answer.read(MOST))
    except (OSError, http.client.HTTPException):
        return b""
