"""HTTP sources; only hosts of the site's list.

Protection against forged requests (SSRF):

- The list names host and port.
- The name is resolved once and the connection goes to that address (`_PinningTransport`), so that
  a changed DNS answer has no effect.
- `addresses` decides which addresses a name may resolve to.
- Redirects are followed on the same origin only, and proxies of the environment are ignored.
- The answer is limited in bytes and seconds, and compressed answers are neither requested nor read.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Sequence
from pathlib import Path

import httpx

from app.sources import addresses
from app.sources.base import (
    Access,
    Collection,
    Limits,
    PermanentSourceError,
    Refusal,
    RefusedSourceError,
    TransientSourceError,
)
from app.sources.intake import Intake
from app.sources.parse import Format, parse
from app.sources.schemas import ApiConfig
from app.threads import alone

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
    """Collects the answer of one URL."""

    def __init__(
        self,
        allowed: Sequence[str],
        limits: Limits,
        ca_file: Path | None = None,
        networks: Sequence[addresses.Network] = (),
        access: Access | None = None,
    ) -> None:
        self._allowed = frozenset(allowed)
        self._limits = limits
        self._ca_file = ca_file
        self._networks = tuple(networks)
        self._access = access or Access()

    def check(self, config: ApiConfig, client: str) -> Refusal | None:
        """Return why a URL is not allowed, without resolving its name."""
        try:
            self._target(config.url, client)
        except RefusedSourceError as error:
            return Refusal("url", str(error), error.code)
        except PermanentSourceError as error:
            return Refusal("url", str(error))
        return None

    def needs(self, config: ApiConfig) -> str | None:
        """Return None: every worker can run such a job."""
        return None

    async def available(self) -> list[str]:
        """Return no needs: nothing special is required."""
        return []

    def _target(self, url: str, client: str) -> httpx.URL:
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError):
            if addresses.hidden(url):
                raise addresses.refuse() from None
            raise PermanentSourceError("bad-url", "is not an address") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise RefusedSourceError(
                addresses.BLOCKED, "must start with http:// or https:// and name a host"
            )
        if target.userinfo:
            raise RefusedSourceError(addresses.BLOCKED, "must carry no user name or password")
        mine = [one for one in sorted(self._allowed) if self._access.allows(f"api:{one}", client)]
        if _origin(target) not in mine:
            address = addresses.literal(target.host)
            if address is not None and addresses.blocked(address):
                raise addresses.refuse()
            known = ", ".join(mine) or "none"
            raise PermanentSourceError(
                "host-not-allowed",
                f"host and port are not on this site's list of sources (known: {known})",
            )
        return target

    async def collect(self, config: ApiConfig, client: str) -> Collection:
        """Fetch the complete answer within the limits of bytes and time; raise `SourceError`."""
        target = self._target(config.url, client)
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
        # Omit the query: it may hold a token.
        plain = str(target.copy_with(query=None, fragment=None))
        origin = {"type": "api", "url": plain, "format": form}
        intake = Intake(io.BytesIO(data), self._limits.max_bytes, origin)
        batches = parse(
            intake,
            form,
            self._limits,
            delimiter=config.delimiter,
            records_path=config.records_path,
        )
        return Collection(batches, origin, intake.foreign)

    async def _fetch(self, target: httpx.URL) -> tuple[bytes, str]:
        ca_file = str(self._ca_file) if self._ca_file else None
        context = await alone("ca", lambda: ssl.create_default_context(cafile=ca_file))
        client = httpx.AsyncClient(
            transport=_PinningTransport(self._networks, context),
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
                except (httpx.InvalidURL, UnicodeError):
                    raise PermanentSourceError(
                        "bad-redirect", "the source redirects to no address"
                    ) from None
                except httpx.TransportError as error:
                    raise TransientSourceError(
                        "connection-failed", f"the source cannot be reached: {type(error).__name__}"
                    ) from error
        raise PermanentSourceError("too-many-redirects", "the source redirects too many times")

    def _redirected(self, target: httpx.URL, answer: httpx.Response) -> httpx.URL:
        there = target.join(answer.headers.get("location", ""))
        if (there.scheme, _origin(there)) != (target.scheme, _origin(target)):
            raise RefusedSourceError(
                addresses.BLOCKED, "the source redirects to another host, which is not followed"
            )
        return there

    async def _body(self, answer: httpx.Response) -> tuple[bytes, str]:
        status = answer.status_code
        if status in _LATER:
            raise TransientSourceError("source-status", f"the source answered {status}")
        if not 200 <= status < 300:
            raise PermanentSourceError("source-status", f"the source answered {status}")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise RefusedSourceError(
                "compressed",
                "the source sends a compressed answer, although the request forbids it",
            )
        data = bytearray()
        async for chunk in answer.aiter_raw():
            data += chunk
            if len(data) > self._limits.max_bytes:
                raise RefusedSourceError(
                    "source-too-large",
                    f"the source sends more than {self._limits.max_bytes} bytes",
                )
        content_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        return bytes(data), content_type


def _origin(url: httpx.URL) -> str:
    port = url.port or (443 if url.scheme == "https" else 80)
    return f"{url.host}:{port}".lower()


class _PinningTransport(httpx.AsyncHTTPTransport):
    """Resolves a name, checks the address and connects to exactly that address."""

    def __init__(self, networks: Sequence[addresses.Network], context: ssl.SSLContext) -> None:
        super().__init__(verify=context, trust_env=False, retries=0)
        self._networks = networks

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        address = await addresses.resolve(host, port, self._networks)
        # The Host header is set already, and TLS still checks the certificate against the name.
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.url = request.url.copy_with(host=address)
        return await super().handle_async_request(request)
