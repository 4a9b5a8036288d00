"""HTTP sources: hosts of the site's list only.

Against requests that are steered elsewhere: the list names host and port; the name is resolved
once and that address is the one connected to (`_PinningTransport`), so an answer of the name
server cannot change in between; addresses of this machine, link-local and multicast ones are
refused unless the list names the address itself; redirects are followed on the same origin only;
proxies from the environment are ignored; the answer is bounded in bytes and time.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import httpx

from app.sources.base import (
    Collection,
    Limits,
    PermanentSourceError,
    Refusal,
    TransientSourceError,
)
from app.sources.parse import Format, parse
from app.sources.schemas import ApiConfig

_REDIRECTS = 3
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_TYPES: dict[str, Format] = {
    "application/json": "json",
    "text/json": "json",
    "text/csv": "csv",
    "application/csv": "csv",
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
    "application/jsonlines": "jsonl",
}


class ApiSource:
    """Fetches one address."""

    def __init__(self, allowed: Sequence[str], limits: Limits, ca_file: Path | None = None) -> None:
        self._allowed = frozenset(allowed)
        self._limits = limits
        self._ca_file = ca_file

    def check(self, config: ApiConfig) -> Refusal | None:
        """What is wrong with an address, without looking it up."""
        try:
            self._target(config.url)
        except PermanentSourceError as error:
            return Refusal("url", str(error))
        return None

    def needs(self, config: ApiConfig) -> str | None:
        """Any worker will do."""
        return None

    def available(self) -> list[str]:
        """Nothing special."""
        return []

    def _target(self, url: str) -> httpx.URL:
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL:
            raise PermanentSourceError("bad-url", "is not an address") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise PermanentSourceError("bad-url", "must start with http:// or https://")
        if target.userinfo:
            raise PermanentSourceError("bad-url", "must carry no user name or password")
        if _origin(target) not in self._allowed:
            known = ", ".join(sorted(self._allowed)) or "none"
            raise PermanentSourceError(
                "host-not-allowed",
                f"host and port are not on this site's list of sources (known: {known})",
            )
        return target

    async def collect(self, config: ApiConfig) -> Collection:
        """Fetch and parse; the whole of it within the time limit."""
        target = self._target(config.url)
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                data, content_type = await self._fetch(target)
        except TimeoutError:
            seconds = self._limits.timeout_seconds
            raise TransientSourceError(
                "timeout", f"the source did not answer in full within {seconds:g} s"
            ) from None
        form = config.format or _TYPES.get(content_type)
        if form is None:
            raise PermanentSourceError(
                "unknown-format",
                "the answer's content type does not tell its format; name it in format",
            )
        records, rejected = await asyncio.to_thread(
            parse,
            data,
            form,
            self._limits,
            delimiter=config.delimiter,
            records_path=config.records_path,
        )
        origin = {
            "type": "api",
            # Without the query: it may hold a token.
            "url": str(target.copy_with(query=None, fragment=None)),
            "format": form,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        return Collection(records, origin, rejected)

    async def _fetch(self, target: httpx.URL) -> tuple[bytes, str]:
        context = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
        client = httpx.AsyncClient(
            transport=_PinningTransport(verify=context, trust_env=False, retries=0),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(self._limits.timeout_seconds, connect=5.0),
            headers={
                "accept": "application/json, application/x-ndjson, text/csv",
                "accept-encoding": "identity",
                "user-agent": "airlift",
            },
        )
        async with client:
            for _ in range(_REDIRECTS + 1):
                try:
                    async with client.stream("GET", target) as answer:
                        if answer.is_redirect:
                            target = self._redirected(target, answer)
                            continue
                        return await self._body(answer)
                except httpx.InvalidURL:
                    raise PermanentSourceError(
                        "bad-redirect", "the source redirects to no address"
                    ) from None
                except httpx.TransportError as error:
                    raise TransientSourceError(
                        "connection-failed", f"the source cannot be reached: {type(error).__name__}"
                    ) from error
        raise PermanentSourceError("too-many-redirects", "the source redirects in circles")

    def _redirected(self, target: httpx.URL, answer: httpx.Response) -> httpx.URL:
        there = target.join(answer.headers.get("location", ""))
        if (there.scheme, _origin(there)) != (target.scheme, _origin(target)):
            raise PermanentSourceError(
                "redirect-refused", "the source redirects to another host, which is not followed"
            )
        return there

    async def _body(self, answer: httpx.Response) -> tuple[bytes, str]:
        status = answer.status_code
        if status in _LATER:
            raise TransientSourceError("source-status", f"the source answered {status}")
        if not 200 <= status < 300:
            raise PermanentSourceError("source-status", f"the source answered {status}")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise PermanentSourceError("compressed", "the source compresses although asked not to")
        data = bytearray()
        async for chunk in answer.aiter_raw():
            data += chunk
            if len(data) > self._limits.max_bytes:
                raise PermanentSourceError(
                    "answer-too-large",
                    f"the source sends more than {self._limits.max_bytes} bytes",
                )
        content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        return bytes(data), content_type


def _origin(url: httpx.URL) -> str:
    port = url.port or (443 if url.scheme == "https" else 80)
    return f"{url.host}:{port}".lower()


class _PinningTransport(httpx.AsyncHTTPTransport):
    """Resolves a name itself, checks the address and connects to exactly that one."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        address = await _resolve(host, port)
        # The Host header is set already; TLS still checks the certificate against the name.
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=address)
        return await super().handle_async_request(request)


async def _resolve(host: str, port: int) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise TransientSourceError(
            "name-not-found", f"the source's name cannot be resolved: {error.strerror}"
        ) from None
    for *_rest, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            continue
        return str(ip)
    raise PermanentSourceError(
        "address-refused", "the source's name leads to this machine or a link-local address"
    )
