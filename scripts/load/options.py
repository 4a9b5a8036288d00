"""What to send, where, and how often."""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

#: Relative frequency of each kind of request; jobs are expensive, so they are rare.
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"item": 30, "predict": 30, "ready": 15, "root": 23, "job": 2}
)


@dataclass(frozen=True)
class Options:
    """The options of a load.

    Attributes:
        url: Root of the site, ``https://`` or ``http://``, without a path.
        ca: PEM file with the only authorities to trust; the system's if None.
        key: Value of ``X-API-Key``; never shown.
        rate: Requests that become due, per second; slow ones come on top.
        weights: Share of each kind (``item``, ``predict``, ``ready``, ``root``, ``job``), relative.
        clients: Near clients, and as many far ones, each with connections of its own. Each
            client sends half as often as the one before, so that at any moment there are
            connections idle for milliseconds and others idle for many seconds: a reload meets
            idle connections of every age.
        far: Share of the requests (0 to 1) that come from far clients.
        delay: Seconds that the way to or from a far client takes, one way.
        slow_every: Seconds between two slow requests (``POST /items``); 0 for none.
        slow_seconds: Seconds over which the body of a slow request is sent.
        timeout: Seconds after which a request without an answer has failed. It bounds the wait at
            the end of the load, too.
    """

    url: str
    ca: Path | None = None
    key: str = field(default="", repr=False)
    rate: float = 40.0
    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS)
    clients: int = 8
    far: float = 0.3
    delay: float = 0.010
    slow_every: float = 5.0
    slow_seconds: float = 10.0
    timeout: float = 60.0

    def __post_init__(self) -> None:
        """Refuse options that cannot work.

        Raises:
            ValueError: An option is wrong; says which. The key is never quoted.
        """
        parts = urllib.parse.urlsplit(self.url)
        weights = self.weights
        checks = {
            "url: must be http(s)://host[:port]": parts.scheme in ("http", "https")
            and parts.hostname
            and not parts.path.strip("/")
            and not parts.query,
            "rate: must be above 0": self.rate > 0,
            f"weights: must be of {', '.join(WEIGHTS)}, not negative, one above 0": (
                set(weights) <= set(WEIGHTS)
                and min(weights.values(), default=-1) >= 0
                and sum(weights.values()) > 0
            ),
            "clients: must be 1 to 30": 1 <= self.clients <= 30,
            "far: must be 0 to 1": 0 <= self.far <= 1,
            "delay, slow_every, slow_seconds: must not be negative": (
                min(self.delay, self.slow_every, self.slow_seconds) >= 0
            ),
            "timeout: must be above slow_seconds": self.timeout > self.slow_seconds,
            "key: must be visible ASCII characters": all("!" <= c <= "~" for c in self.key),
        }
        for what, right in checks.items():
            if not right:
                raise ValueError(what)

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port to connect to."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        return urllib.parse.urlsplit(self.url).netloc

    def context(self) -> ssl.SSLContext | None:
        """Return the context that verifies the site, None for ``http://``.

        Raises:
            OSError: The file ``ca`` is not there or no certificate.
        """
        if urllib.parse.urlsplit(self.url).scheme == "http":
            return None
        return ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
